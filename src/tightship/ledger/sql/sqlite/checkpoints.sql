SELECT size, note FROM checkpoints WHERE log = ? ORDER BY size

SELECT size, note FROM checkpoints WHERE log = %s ORDER BY size DESC LIMIT 1

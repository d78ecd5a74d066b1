DELETE FROM bundles WHERE id = ?

DELETE FROM bundles WHERE id = %s

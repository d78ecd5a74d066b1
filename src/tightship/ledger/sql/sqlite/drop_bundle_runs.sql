DELETE FROM bundle_runs WHERE bundle = ?

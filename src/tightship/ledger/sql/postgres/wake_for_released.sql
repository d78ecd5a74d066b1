SELECT wake_builds(ARRAY(
    SELECT DISTINCT build FROM runs WHERE state = 'running' AND owner = %s AND live = 1
))

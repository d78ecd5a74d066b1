SELECT origin, vkey FROM public_keys ORDER BY origin

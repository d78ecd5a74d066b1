INSERT INTO public_keys (origin, vkey) VALUES (%s, %s) ON CONFLICT (origin) DO NOTHING

SELECT data FROM tiles WHERE log = %s AND level = %s AND position = %s

DELETE FROM workers WHERE id = %s

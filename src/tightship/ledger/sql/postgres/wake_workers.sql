SELECT wake_workers(%s)

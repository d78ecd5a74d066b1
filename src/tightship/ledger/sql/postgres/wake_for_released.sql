SELECT wake_for_released(%s)

package pipeline

// topic names the Watermill topic on which a stage takes its hints.
func topic(stage string) string { return "msgctl." + stage }

package pipeline

// topicOf names the Watermill topic on which a stage takes its hints. Urgent ones have their own, because a topic's hints
// go one after the other.
func topicOf(stage string, urgent bool) string {
	if urgent {
		return "msgctl." + stage + ".urgent"
	}
	return "msgctl." + stage
}

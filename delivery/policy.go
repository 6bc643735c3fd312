package delivery

import "time"

// RouteRule says by which connector accounts some of a tenant's messages go. The first rule that matches decides; a
// message that no rule matches goes by the accounts' own priorities. Zero fields match everything.
type RouteRule struct {
	Channel  Channel `json:"channel,omitempty"`
	Prefix   string  `json:"prefix,omitempty"`   // the address begins with it (+91), or, for e-mail, ends in this domain
	Category string  `json:"category,omitempty"` // what the sender said the message is, such as otp or marketing
	Tag      string  `json:"tag,omitempty"`
	// Targets share the messages by weight. A target of weight 0 is a reserve: it gets messages only while none of the
	// weighted ones can take them, in the order of the list.
	Targets []RouteTarget `json:"targets"`
}

// RouteTarget is one account of a rule.
type RouteTarget struct {
	Connector string `json:"connector"`
	Weight    int    `json:"weight"` // 0–1,000
}

// RetryRule is a tenant's schedule for failures of one channel and class; zero fields mean any. The last delay repeats.
type RetryRule struct {
	Channel Channel         `json:"channel,omitempty"`
	Class   Class           `json:"class,omitempty"` // Transient or InDoubt
	Delays  []time.Duration `json:"delays"`
	// GiveUpAfter ends a message as failed, and so as a dead letter, when its next attempt would start later than this
	// after it was accepted; 0 = it is tried until it expires.
	GiveUpAfter time.Duration `json:"give_up_after,omitempty"`
}

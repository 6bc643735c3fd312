package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sms"
)

// segmentPlan is how a text travels by SMS.
type segmentPlan struct {
	Encoding string      `json:"encoding"` // GSM-7 or UCS-2
	Segments int         `json:"segments"`
	Units    int         `json:"units"`
	Free     int         `json:"free"` // units left in the last segment
	Parts    []segment   `json:"parts"`
	Forced   []character `json:"forced,omitempty"` // with UCS-2: the first characters that made it so
	Instead  *instead    `json:"transliterated,omitempty"`
}

type segment struct {
	Text  string `json:"text"`
	Units int    `json:"units"`
}

type character struct {
	Character string `json:"character"`
	Code      string `json:"code"`
	Position  int    `json:"position"` // from 1, in characters
}

// instead is the same text in characters of the GSM alphabet.
type instead struct {
	Text     string `json:"text"`
	Segments int    `json:"segments"`
}

func (a *app) segmentsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "segments TEXT", Short: "Count the SMS parts of a text, and show what costs more", Args: a.args("TEXT"),
		Long: "Count the SMS parts of a text, and show what costs more.\n\n" +
			"An SMS holds 160 characters of the GSM alphabet, or 70 when one single character\n" +
			"is not in it: the whole text then travels as UCS-2. A longer text is split into\n" +
			"parts of 153 or 67. The characters ^ { } [ ] ~ \\ | and € count twice.\n\n" +
			"A typographic quote, an emoji or a letter such as ş is enough to make a second\n" +
			"part. TEXT - is stdin.",
		Example: "  msgctl segments \"It’s here\"\n  msgctl segments - < text.txt",
		RunE: func(_ *cobra.Command, args []string) error {
			text := args[0]
			if text == "-" {
				var err error
				if text, err = a.readText(); err != nil {
					return err
				}
			}
			p := planSegments(text)
			if a.human() {
				_, err := fmt.Fprint(a.out, segmentsText(p))
				return err
			}
			return a.object(view{cols: []string{"encoding", "segments", "units", "free"}}, p)
		},
	}
	return a.shape(cmd, segmentPlan{})
}

func planSegments(text string) segmentPlan {
	plan := sms.Split(text)
	alone, part := plan.Encoding.Limits()
	if len(plan.Segments) == 1 {
		part = alone
	}
	p := segmentPlan{Encoding: encodingName(plan.Encoding), Segments: len(plan.Segments), Units: plan.Units}
	for _, s := range plan.Segments {
		p.Parts = append(p.Parts, segment{s.Text, s.Units})
		p.Free = part - s.Units
	}
	for _, f := range plan.Forced {
		p.Forced = append(p.Forced, character{string(f.Rune), fmt.Sprintf("U+%04X", f.Rune), f.Offset + 1})
	}
	if plan.Encoding == sms.UCS2 {
		if other, left := sms.Transliterate(text); len(left) == 0 {
			n, _ := sms.Count(other)
			p.Instead = &instead{other, n}
		}
	}
	return p
}

func encodingName(e sms.Encoding) string {
	if e == sms.UCS2 {
		return "UCS-2"
	}
	return "GSM-7"
}

func segmentsText(p segmentPlan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s, %d of %d used", count(p.Segments, "segment"), p.Encoding, p.Units, p.Units+p.Free)
	if p.Segments > 1 {
		fmt.Fprintf(&b, "; %d free in the last", p.Free)
	}
	b.WriteString("\n")
	if p.Segments > sms.MaxSegments {
		fmt.Fprintf(&b, "✗ no phone joins more than %d\n", sms.MaxSegments)
	}
	if p.Segments > 1 {
		for i, s := range p.Parts {
			if i == 10 {
				fmt.Fprintf(&b, "  … and %d more\n", len(p.Parts)-i)
				break
			}
			fmt.Fprintf(&b, "  %d  %3d  %s\n", i+1, s.Units, clean(s.Text))
		}
	}
	for _, c := range p.Forced {
		shown := clean(c.Character)
		if shown == "" {
			shown = "(invisible)"
		}
		fmt.Fprintf(&b, "! %s  %s at character %d is not in the GSM alphabet\n", shown, c.Code, c.Position)
	}
	if p.Instead != nil {
		fmt.Fprintf(&b, "  instead, with %s: %s\n", count(p.Instead.Segments, "segment"), clean(p.Instead.Text))
	}
	return b.String()
}

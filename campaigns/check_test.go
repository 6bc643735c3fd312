package campaigns

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

func TestCheckSaysWhoWouldGetWhat(t *testing.T) {
	b := setup(t)
	c := b.addCampaign("c", 3000)
	c.Rate = 200
	b.Rates = func(_ delivery.TenantID, ch delivery.Channel) float64 {
		return map[delivery.Channel]float64{delivery.SMS: 100, delivery.Email: 1000}[ch]
	}
	c.Legs = append(c.Legs, store.Leg{Channel: delivery.Email, Template: "mail"})
	b.store.templates["mail"] = []store.Template{{Name: "mail", Channel: delivery.Email, Version: 1, Subject: "Hello", Text: "Dear {{ name }}, from {{ city }}"}}
	b.store.accounts = append(b.store.accounts, store.Account{Name: "smtp", Channel: delivery.Email})
	b.store.templates["hi"][0].Text = "Hi {{ name }}{% if zero %}{{ 1 | divided_by: zero }}{% endif %}{% if city %}{{ street }}{% endif %}"
	people := b.store.people[c.Audience]
	for i := range 100 { // by e-mail
		people[i].Phone, people[i].Email = "", fmt.Sprintf("p%d@example.com", i)
		people[i].Vars = json.RawMessage(`{"name":"N","city":"Pune"}`)
	}
	for i := 90; i < 100; i++ {
		people[i].Vars = json.RawMessage(`{"name":"","city":null}`)
	}
	for i := 100; i < 120; i++ {
		people[i].Vars = json.RawMessage(`{"name":"आशा"}`)
	}
	people[120].Vars = json.RawMessage(`{"name":"` + strings.Repeat("x", 400) + `"}`)
	people[121].Vars = json.RawMessage(`{"name":"N","zero":0}`)
	people[122] = store.Person{Seq: 123, URL: "https://example.com"}
	for i := 123; i < 130; i++ {
		b.store.suppressed = append(b.store.suppressed, store.Suppression{To: people[i].Phone})
	}
	people[130].Vars = nil
	people[132].Vars = json.RawMessage(`{"name":"N","street":""}`) // not printed
	people[133].Vars = json.RawMessage(`{"name":"N","city":"Pune","street":""}`)
	people[131].Vars = json.RawMessage(`{"name":"N","city":"Pune"}`)

	got, err := b.Check(t.Context(), acme, "c")
	require.NoError(t, err)
	require.Equal(t, map[string]int{"missing_variable": 13, "render_failed": 1, "no_address": 1, "suppressed": 7}, got.Skipped)
	require.Equal(t, 3000, got.People+sum(got.Skipped))
	require.Equal(t, map[delivery.Channel]Count{delivery.SMS: {2888, 2890}, delivery.Email: {90, 90}}, got.ByChannel)
	require.Equal(t, 2890, got.Segments)
	require.Equal(t, 20, got.UCS2)
	require.Equal(t, "आशा", sortedLikeName(got.UCS2Sample))
	require.InDelta(t, 28.90, got.Seconds, 1e-9, "SMS segments at 100/s take longest")
	require.Len(t, got.Missing, 4)
	require.Equal(t, "mail city 10", fmt.Sprint(got.Missing[0].Template, " ", got.Missing[0].Variable, " ", got.Missing[0].People))
	require.Len(t, got.Missing[0].Examples, 5)
	require.Equal(t, "p***@example.com", got.Missing[0].Examples[0])
	require.Equal(t, Missing{"hi", "street", 2, []string{"+12***31", "+12***33"}}, got.Missing[2], "in a branch that is taken")
	require.Equal(t, Missing{"hi", "name", 1, []string{"+12***30"}}, got.Missing[3])
	require.Len(t, got.Failed, 1)
	require.Contains(t, got.Failed[0].Error, "zero")
	require.Equal(t, []string{"+12***21"}, got.Failed[0].Examples)
	var codes []string
	for _, p := range got.Problems {
		codes = append(codes, p.Code)
	}
	require.Equal(t, []string{"missing_variable", "missing_variable", "missing_variable", "missing_variable", "render_failed"}, codes)
	require.Equal(t, `1 person has no {{name}}, which template "hi" needs: give it a default, as in {{ name | default: "…" }}, `+
		`or complete the audience`, got.Problems[3].String())

	b.Rates = func(delivery.TenantID, delivery.Channel) float64 { return 0 }
	got, err = b.Check(t.Context(), acme, "c")
	require.NoError(t, err)
	require.InDelta(t, 2978.0/200, got.Seconds, 1e-9, "the campaign's own rate")
	c.Rate = 0
	got, err = b.Check(t.Context(), acme, "c")
	require.NoError(t, err)
	require.Zero(t, got.Seconds)
	require.Empty(t, b.store.messages, "a check sends nothing")
}

// sortedLikeName puts the sample's characters, which are sorted, back into the order of the name.
func sortedLikeName(sample string) string {
	out := ""
	for _, r := range "आशा" {
		if strings.ContainsRune(sample, r) {
			out += string(r)
		}
	}
	return out
}

func TestCheckOfAnAudienceThatNobodyReaches(t *testing.T) {
	b := setup(t)
	c := b.addCampaign("c", 2)
	for i := range b.store.people[c.Audience] {
		b.store.people[c.Audience][i].Phone = ""
	}
	got, err := b.Check(t.Context(), acme, "c")
	require.NoError(t, err)
	require.Zero(t, got.People)
	require.Equal(t, ProblemNobody, got.Problems[0].Code)
	_, err = b.Check(t.Context(), acme, "none")
	require.ErrorIs(t, err, store.ErrNotFound)
}

func TestMaskedAddressesDoNotReachAnybody(t *testing.T) {
	for in, want := range map[string]string{
		"+12025550100": "+12***00", "asha@example.com": "a***@example.com", "https://example.com/hook?key=1": "https://example.com/***",
		"": "***", "x": "***", "@": "***@", "+1202": "***",
	} {
		require.Equal(t, want, mask(in))
	}
}

func BenchmarkCheck(b *testing.B) {
	s := setup(b)
	s.addCampaign("c", 50_000)
	for b.Loop() {
		c, err := s.Check(b.Context(), acme, "c")
		if err != nil || c.People != 50_000 {
			b.Fatal(err, c)
		}
	}
	b.ReportMetric(float64(b.N)*50_000/b.Elapsed().Seconds(), "people/s")
}

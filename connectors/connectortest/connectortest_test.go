package connectortest

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A connector without a bug passes, so what the kit says about the others is about their bug.
func TestTheFakePasses(t *testing.T) { Run(t, *fakeHarness("")) }

// watcher is a tb that remembers complaints instead of failing.
type watcher struct {
	mu         sync.Mutex
	complaints []string
	cleanups   []func()
}

func (w *watcher) Helper() {}

func (w *watcher) Errorf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.complaints = append(w.complaints, fmt.Sprintf(format, args...))
}

func (w *watcher) Fatalf(format string, args ...any) { w.Errorf(format, args...); runtime.Goexit() }
func (w *watcher) Skipf(string, ...any)              { runtime.Goexit() }
func (w *watcher) Cleanup(f func())                  { w.cleanups = append(w.cleanups, f) }

// watch runs one rule to its end and returns its complaints.
func watch(r rule, h *Harness) []string {
	w := &watcher{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			for _, f := range w.cleanups {
				f()
			}
		}()
		r.check(w, h)
	}()
	<-done
	return w.complaints
}

// Each bug must be caught by the rule that it breaks.
func TestEachBugIsCaught(t *testing.T) {
	caught := map[string][]bug{
		"the kind is complete and its secrets are marked":         {"no doc", "unmarked secret"},
		"wrong settings are refused by name":                      {"panics on empty settings"},
		"opening makes no traffic":                                {"sends at open"},
		"a taken message is Sent":                                 {"no provider id", "long detail"},
		"Send does not change the message":                        {"changes message"},
		"Send is safe from many goroutines":                       {"mixes up answers"},
		"Send makes one attempt and no retry":                     {"retries"},
		"every failure is classified":                             {"everything transient", "plain errors", "nothing known"},
		"an unknown code is transient and marked unknown":         {"knows every code"},
		"the wait that a provider asks for is passed on":          {"no retry-after"},
		"a lost answer is in doubt":                               {"lost means transient"},
		"a garbled answer is not taken for success":               {"garbage is success"},
		"Send returns when its context ends and then is in doubt": {"gives up in doubt as transient"},
		"a context that ended before sends nothing":               {"ignores ended context", "always in doubt"},
		"a dripping answer ends with the context":                 {"gives up in doubt as transient"},
		"an endless answer is cut":                                {"reads everything"},
		"secrets stay out of errors and logs":                     {"secret in error", "logs the recipient"},
		"a forged callback is refused":                            {"trusts everybody", "reports forgeries"},
		"a callback says the same each time it is read":           {"misreads receipts", "stateful reading"},
		"a kind that settles doubts by asking can be asked":       {"cannot be asked"},
		"a query finds what the provider took":                    {"finds nothing", "asks by sending", "finds no id"},
		"a query rules out what the provider never took":          {"never rules out", "finds what was refused"},
		"a query that cannot tell says so":                        {"takes silence for no", "takes silence for yes"},
		"a query ends with its context":                           {"asks without end", "takes an end for no"},
		"secrets stay out of what a query says":                   {"secret in a query", "logs the secret"},
		"Close ends every goroutine":                              {"leaks a goroutine"},
	}
	for _, r := range rules() {
		for _, b := range caught[r.sentence] {
			t.Run(r.sentence+"/"+string(b), func(t *testing.T) {
				require.Empty(t, watch(r, fakeHarness("")), "without the bug")
				h := fakeHarness(b)
				h.Patience = 200 * time.Millisecond // how long to look for what will not happen
				require.NotEmpty(t, watch(r, h), "the bug was not caught")
			})
		}
		require.NotEmpty(t, caught[r.sentence], "no bug is planted for %q", r.sentence)
	}
}

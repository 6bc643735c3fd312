//go:build unix

package crash

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/simulator"
)

// simulate is the simulator's process. It says where it listens, obeys a command a line, and ends with its input, so
// that it never outlives whoever started it:
//
//	callback URL   post WhatsApp statuses there
//	stall          say for how long, in microseconds, this process got no processor at worst since the last time
//	stalls         list every time that it got none for longer than worthTelling since the last time, as pairs of the end
//	               in Unix microseconds and the length in microseconds
func simulate(in io.Reader, out, errs io.Writer) int {
	opt := sandbox.SimulatorOptions()
	opt.LedgerLimit = ledgerLimit
	sim, err := simulator.Start(context.Background(), opt)
	if err != nil {
		fmt.Fprintln(errs, err)
		return 1
	}
	defer sim.Close()
	fmt.Fprintln(out, sim.SMPPAddr(), sim.SMTPAddr(), sim.URL())
	var worst atomic.Int64
	var mu sync.Mutex
	var stalls []byte
	tick := time.NewTicker(stallTick)
	defer tick.Stop()
	go func() {
		for last := range tick.C {
			// The channel keeps one tick: how late it is read is how long nothing here ran.
			late := time.Since(last)
			worst.Store(max(worst.Load(), late.Microseconds()))
			if late > worthTelling {
				mu.Lock()
				stalls = fmt.Appendf(stalls, "%d %d ", time.Now().UnixMicro(), late.Microseconds())
				mu.Unlock()
			}
		}
	}()
	for lines := bufio.NewScanner(in); lines.Scan(); {
		switch command, arg, _ := strings.Cut(lines.Text(), " "); command {
		case "callback":
			sim.SetWhatsAppCallback(arg)
		case "stall":
			fmt.Fprintln(out, worst.Swap(0))
		case "stalls":
			mu.Lock()
			fmt.Fprintf(out, "%s\n", stalls)
			stalls = nil
			mu.Unlock()
		}
	}
	return 0
}

const (
	stallTick    = time.Millisecond
	worthTelling = 5 * time.Millisecond
	// ledgerLimit bounds the simulator's memory: what was read of its ledger goes some time later.
	ledgerLimit = 400_000
)

// simProcess is the lab's side of the simulator's process.
type simProcess struct {
	l     *lab
	at    sandbox.Addresses
	in    io.Writer
	out   *bufio.Reader
	slows []string // accounts that are slow now

	ledger []sighting // as far as it was read
}

// sighting is one entry of the ledger, without what nobody here asks for.
type sighting struct {
	At time.Time
	Submission
	Taken bool
}

// see keeps what counts of an entry. Only a webhook carries a key by which its receiver knows it again.
func see(e simulator.Entry) sighting {
	s := sighting{At: e.At, Submission: Submission{Address: Address{To: e.To}}, Taken: e.Taken}
	for _, channel := range []string{"sms", "whatsapp", "email", "webhook"} {
		if e.Channel == channel { // one string for all
			s.Channel = channel
		}
	}
	if ambiguity(s.Channel) == dedupeKey {
		s.Key = e.Ref
	}
	return s
}

func startSimulator(l *lab) *simProcess {
	self, err := os.Executable()
	l.NoError(err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleEnv+"=simulator")
	s := &simProcess{l: l}
	s.in, err = cmd.StdinPipe()
	l.NoError(err)
	out, err := cmd.StdoutPipe()
	l.NoError(err)
	l.run(cmd, l.log+".simulator")
	s.out = bufio.NewReader(out)
	where := strings.Fields(s.answer())
	l.Len(where, 3)
	s.at = sandbox.Addresses{SMPP: where[0], SMTP: where[1], HTTP: where[2]}
	return s
}

func (s *simProcess) tell(line string) {
	_, err := fmt.Fprintln(s.in, line)
	s.l.NoError(err)
}

func (s *simProcess) answer() string {
	line, err := s.out.ReadString('\n')
	s.l.NoError(err)
	return strings.TrimSpace(line)
}

// stall returns for how long the simulator did not run at worst, since it was last asked.
func (s *simProcess) stall() time.Duration {
	s.tell("stall")
	us, err := strconv.Atoi(s.answer())
	s.l.NoError(err)
	return time.Duration(us) * time.Microsecond
}

// stalls lists when the simulator did not run, since it was last asked.
func (s *simProcess) stalls() (out []stall) {
	s.tell("stalls")
	words := strings.Fields(s.answer())
	for i := 0; i+1 < len(words); i += 2 {
		end, err := strconv.ParseInt(words[i], 10, 64)
		s.l.NoError(err)
		us, err := strconv.ParseInt(words[i+1], 10, 64)
		s.l.NoError(err)
		out = append(out, stall{time.UnixMicro(end), time.Duration(us) * time.Microsecond})
	}
	return out
}

// seen reads what is new in the ledger and returns all of it.
func (s *simProcess) seen() []sighting {
	s.l.t.Helper()
	resp := s.request(http.MethodGet, "/sim/ledger?after="+strconv.Itoa(len(s.ledger)))
	defer resp.Body.Close()
	for dec := json.NewDecoder(resp.Body); ; {
		var e simulator.Entry
		err := dec.Decode(&e)
		if err == io.EOF {
			return s.ledger
		}
		s.l.NoError(err)
		s.ledger = append(s.ledger, see(e))
		if e.Seq != len(s.ledger) {
			s.l.FailNow("the ledger has a hole", "entry %d comes as number %d", e.Seq, len(s.ledger))
		}
	}
}

// slow delays the answers to every account of sandbox.Connect, and to others that are named; heal ends it.
func (s *simProcess) slow(d time.Duration, others ...string) {
	for _, account := range append([]string{"sim-sms", "sim-mail", sandbox.PhoneNumberID, "200"}, others...) {
		s.request(http.MethodPost, "/sim/accounts/"+account+"/slow?by="+url.QueryEscape(d.String())).Body.Close()
		s.slows = append(s.slows, account)
	}
}

func (s *simProcess) heal() {
	for _, account := range s.slows {
		s.request(http.MethodPost, "/sim/accounts/"+account+"/heal").Body.Close()
	}
	s.slows = nil
}

func (s *simProcess) request(method, path string) *http.Response {
	s.l.t.Helper()
	req, err := http.NewRequestWithContext(s.l.ctx, method, s.at.HTTP+path, nil)
	s.l.NoError(err)
	resp, err := http.DefaultClient.Do(req)
	s.l.NoError(err)
	s.l.Equal(http.StatusOK, resp.StatusCode)
	return resp
}

// taken returns what the providers took, of the sightings from a place on.
func taken(seen []sighting) []Submission {
	out := make([]Submission, 0, len(seen))
	for _, s := range seen {
		if s.Taken {
			out = append(out, s.Submission)
		}
	}
	return out
}

package simulator

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msgctl/msgctl/delivery"
)

// meta is the WhatsApp Cloud API as far as sending goes: POST /{version}/{phone_number_id}/messages, and
// GET /{version}/{phone_number_id} to look at the number. Statuses and replies go out through its callbacks.
type meta struct {
	sim   *Sim
	bufs  sync.Pool
	run   [8]byte // makes ids of two runs differ
	count atomic.Uint64
	out   *callbacks
}

func newMeta(s *Sim) *meta {
	m := &meta{sim: s, out: newCallbacks(s)}
	m.bufs.New = func() any { return new(bytes.Buffer) }
	_, _ = rand.Read(m.run[:])
	return m
}

func (m *meta) close()                 { m.out.close() }
func (m *meta) setCallback(url string) { m.out.set(url) }

// routes takes every path that nobody else has: the version in front may be any.
func (m *meta) routes(mux *http.ServeMux) { mux.Handle("/", m) }

// metaMessage is the part of a request that the API reads.
type metaMessage struct {
	Product  string         `json:"messaging_product"`
	To       string         `json:"to"`
	Type     string         `json:"type"`
	Opaque   string         `json:"biz_opaque_callback_data"`
	Text     *metaText      `json:"text"`
	Template *metaTemplated `json:"template"`
}

type metaText struct {
	Body string `json:"body"`
}

type metaTemplated struct {
	Name     string `json:"name"`
	Language struct {
		Code string `json:"code"`
	} `json:"language"`
	Components []struct {
		Type       string `json:"type"`
		Parameters []struct {
			Text string `json:"text"`
		} `json:"parameters"`
	} `json:"components"`
}

// metaError is an error as the Graph API gives it.
type metaError struct {
	status  int
	code    int
	message string
	details string
}

func (m *meta) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	shaped := len(parts) == 2 || len(parts) == 3 && parts[2] == "messages"
	if !shaped || !strings.HasPrefix(parts[0], "v") || parts[1] == "" {
		http.NotFound(w, r)
		return
	}
	account := parts[1]
	if want := m.sim.opt.WhatsAppToken; want != "" {
		given := r.Header.Get("Authorization")
		if subtle.ConstantTimeCompare([]byte(given), []byte("Bearer "+want)) != 1 {
			m.refuse(w, metaError{401, 190, "Invalid OAuth access token - Cannot parse access token", ""})
			return
		}
	}
	switch {
	case len(parts) == 2 && r.Method == http.MethodGet:
		m.look(w, account)
	case len(parts) == 3 && r.Method == http.MethodPost:
		m.send(w, r, account)
	default:
		m.refuse(w, metaError{400, 100, "Unsupported " + strings.ToLower(r.Method) + " request", ""})
	}
}

// look answers the question whether the number is there.
func (m *meta) look(w http.ResponseWriter, account string) {
	if f := m.sim.script.broken(account); f != NoFault {
		m.refuse(w, metaFault(f))
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{
		"id": account, "verified_name": "Simulator", "display_phone_number": displayNumber(account),
	})
}

func (m *meta) send(w http.ResponseWriter, r *http.Request, account string) {
	buf := m.bufs.Get().(*bytes.Buffer)
	defer m.bufs.Put(buf)
	buf.Reset()
	if !readBody(w, r, buf) {
		return
	}
	var msg metaMessage
	if err := json.Unmarshal(buf.Bytes(), &msg); err != nil {
		m.refuse(w, metaError{400, 100, "Invalid parameter", "the body is not JSON"})
		return
	}
	text, subject, bad := msg.content()
	if bad != "" {
		m.refuse(w, metaError{400, 100, "Invalid parameter", bad})
		return
	}
	s := m.sim
	to := "+" + strings.TrimPrefix(msg.To, "+")
	v := s.script.decide(delivery.WhatsApp, account, to)
	taken := v.Fault == NoFault || v.Fault == LostAck
	e := Entry{
		At: s.clock.Now(), Channel: delivery.WhatsApp.String(), Account: account, To: to, From: displayNumber(account),
		Ref: msg.Opaque, Taken: taken, Outcome: v.Outcome, Subject: subject, Text: text,
	}
	if taken {
		e.ProviderID = m.id()
	}
	s.ledger.add(e)
	if v.ReceiptFirst {
		m.report(e, v)
	}
	heard := s.wait(r.Context(), s.opt.Latency+v.Latency)
	switch {
	case !heard:
	case v.Fault == LostAck:
		hangUp(w)
	case taken:
		writeJSON(w, http.StatusOK, map[string]any{
			"messaging_product": "whatsapp",
			"contacts":          []map[string]string{{"input": msg.To, "wa_id": to[1:]}},
			"messages":          []map[string]string{{"id": e.ProviderID, "message_status": "accepted"}},
		})
	default:
		setRetryAfter(w, v.RetryAfter)
		m.refuse(w, metaFault(v.Fault))
	}
	if taken && !v.ReceiptFirst {
		m.report(e, v)
	}
}

// content returns what the person will read, or what is wrong.
func (m *metaMessage) content() (text, subject, bad string) {
	switch {
	case m.Product != "whatsapp":
		return "", "", "messaging_product must be whatsapp"
	case strings.Trim(strings.TrimPrefix(m.To, "+"), "0123456789") != "" || len(m.To) < 5:
		return "", "", "to must be a phone number"
	case len(m.Opaque) > 512:
		return "", "", "biz_opaque_callback_data is longer than 512 characters"
	case m.Type == "template" && m.Template != nil && m.Template.Name != "" && m.Template.Language.Code != "":
		var params []string
		for _, c := range m.Template.Components {
			for _, p := range c.Parameters {
				params = append(params, p.Text)
			}
		}
		return strings.Join(params, " "), m.Template.Name, ""
	case m.Type == "template":
		return "", "", "template needs a name and a language code"
	case m.Type != "" && m.Type != "text":
		return "", "", "type is not known here"
	case m.Text == nil || m.Text.Body == "" || len([]rune(m.Text.Body)) > 4096:
		return "", "", "text.body must have 1 to 4096 characters"
	}
	return m.Text.Body, "", ""
}

// report schedules the receipts and the reply that the script asks for. Those that fall due together keep their order.
func (m *meta) report(e Entry, v Verdict) {
	var due []item
	after := m.sim.opt.ReceiptDelay // a reply alone comes when a receipt would
	if len(v.Receipts) > 0 {
		after = v.Receipts[0].After
	}
	for _, r := range v.Receipts {
		if r.After != after {
			m.later(after, due)
			due, after = nil, r.After
		}
		due = append(due, item{account: e.Account, status: m.status(e, r)})
	}
	if v.Reply != "" {
		due = append(due, m.inbound(e.To, e.Account, v.Reply))
	}
	m.later(after, due)
}

// later queues items after d of the simulator's time.
func (m *meta) later(d time.Duration, due []item) {
	switch {
	case len(due) == 0:
	case d <= 0:
		m.out.add(due...)
	default:
		m.sim.clock.AfterFunc(d, func() { m.out.add(due...) })
	}
}

// status is one status object; its time is set when it goes out.
func (m *meta) status(e Entry, r ScriptedReceipt) *metaStatus {
	st := &metaStatus{ID: e.ProviderID, Recipient: strings.TrimPrefix(e.To, "+"), Opaque: e.Ref}
	switch r.Status {
	case delivery.StatusDelivered:
		st.Status = "delivered"
	case delivery.StatusRead:
		st.Status = "read"
	case delivery.StatusSent:
		st.Status = "sent"
	default:
		f := metaFault(r.Fault)
		if r.Fault == Absent { // accepted, and the person was not there to be reached
			f = metaFault(Temporary)
		}
		st.Status = "failed"
		data := map[string]string{"details": f.details}
		st.Errors = []metaStatusError{{Code: f.code, Title: f.message, Message: f.message, Data: data}}
	}
	return st
}

func (m *meta) inbound(from, to, text string) item {
	from = strings.TrimPrefix(from, "+")
	return item{account: to, message: &metaInbound{From: from, ID: m.id(), Type: "text", Text: metaText{Body: text}}}
}

func (m *meta) reply(from, to, text string) error {
	if !m.out.add(m.inbound(from, to, text)) {
		return fmt.Errorf("simulator: no WhatsApp callback is set")
	}
	return nil
}

// id makes a provider's id that looks like Meta's.
func (m *meta) id() string {
	var raw [16]byte
	copy(raw[:], m.run[:])
	binary.BigEndian.PutUint64(raw[8:], m.count.Add(1))
	return "wamid." + base64.StdEncoding.EncodeToString(raw[:])
}

// metaFault is the error that the API gives for a fault. Codes: Cloud API, "Error codes", read October 2026.
func metaFault(f Fault) metaError {
	switch f {
	case ThrottledFault:
		return metaError{429, 130429, "(#130429) Rate limit hit", "Too many messages were sent."}
	case UnknownSubscriber, NotOnWhatsApp, Absent:
		return metaError{400, 131026, "(#131026) Message undeliverable", "The recipient cannot be reached on WhatsApp."}
	case Blocked:
		return metaError{403, 131050, "(#131050) User stopped marketing messages", "The recipient does not want them."}
	case RejectedFault:
		return metaError{400, 132007, "(#132007) Template content policy violated", "The content breaks a policy."}
	case BadLogin:
		return metaError{401, 190, "Error validating access token", "Session has expired."}
	case Down:
		return metaError{503, 2, "(#2) Service temporarily unavailable", "Try again later."}
	}
	return metaError{500, 131000, "(#131000) Something went wrong", "An unknown error happened."}
}

func (m *meta) refuse(w http.ResponseWriter, e metaError) {
	m.sim.log.Debug("whatsapp request refused", "status", e.status, "code", e.code)
	writeJSON(w, e.status, map[string]any{"error": map[string]any{
		"message": e.message, "type": "OAuthException", "code": e.code,
		"fbtrace_id": "A" + strconv.FormatUint(m.count.Add(1), 36),
		"error_data": map[string]string{"messaging_product": "whatsapp", "details": e.details},
	}})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// displayNumber is the number that a phone number id stands for, as far as anybody can see.
func displayNumber(account string) string {
	if len(account) > 4 {
		account = account[len(account)-4:]
	}
	return "1555000" + account
}

package delivery

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"time"
)

// Ids are UUIDv7 (RFC 9562 §5.7): they sort by the time they were made. People see them as a prefix and 26 characters of
// Crockford base32 in lower case, which keeps that order: msg_01jdm….
type (
	// MessageID names one message, for ever: retries and redrives keep it.
	MessageID [16]byte
	// CampaignID names one campaign.
	CampaignID [16]byte
	// AccountID names one configured connector account.
	AccountID [16]byte
	// KeyID names one API key.
	KeyID [16]byte
)

// ErrBadID is what the Parse functions return for text that is not an id of the asked kind.
var ErrBadID = errors.New("not an id of this kind")

const crockford = "0123456789abcdefghjkmnpqrstvwxyz"

func (id MessageID) String() string  { return encodeID("msg_", id) }
func (id CampaignID) String() string { return encodeID("cmp_", id) }
func (id AccountID) String() string  { return encodeID("con_", id) }
func (id KeyID) String() string      { return encodeID("key_", id) }

// IsZero reports whether the id was never set.
func (id MessageID) IsZero() bool { return id == MessageID{} }

// IsZero reports whether the id was never set.
func (id CampaignID) IsZero() bool { return id == CampaignID{} }

// IsZero reports whether the id was never set.
func (id AccountID) IsZero() bool { return id == AccountID{} }

// ParseMessageID reads what MessageID.String writes.
func ParseMessageID(s string) (MessageID, error) { return decodeID[MessageID]("msg_", s) }

// ParseCampaignID reads what CampaignID.String writes.
func ParseCampaignID(s string) (CampaignID, error) { return decodeID[CampaignID]("cmp_", s) }

// ParseAccountID reads what AccountID.String writes.
func ParseAccountID(s string) (AccountID, error) { return decodeID[AccountID]("con_", s) }

// ParseKeyID reads what KeyID.String writes.
func ParseKeyID(s string) (KeyID, error) { return decodeID[KeyID]("key_", s) }

// encodeID writes 128 bits as 26 characters, most significant first; the first character carries 3 bits.
func encodeID(prefix string, id [16]byte) string {
	hi, lo := binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
	var out [30]byte
	n := copy(out[:], prefix)
	for i := 25; i >= 0; i-- {
		out[n+i] = crockford[lo&31]
		lo = lo>>5 | hi<<59
		hi >>= 5
	}
	return string(out[:n+26])
}

func decodeID[T ~[16]byte](prefix, s string) (T, error) {
	var id T
	if len(s) != len(prefix)+26 || !strings.HasPrefix(s, prefix) {
		return id, ErrBadID
	}
	s = s[len(prefix):]
	if s[0] > '7' { // more than 128 bits
		return id, ErrBadID
	}
	var hi, lo uint64
	for i := range len(s) {
		v := strings.IndexByte(crockford, s[i])
		if v < 0 {
			return id, ErrBadID
		}
		hi = hi<<5 | lo>>59
		lo = lo<<5 | uint64(v)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	return T(b), nil
}

// IDs makes ids. It is safe for concurrent use. Ids from one IDs strictly increase even when its clock stands still or
// steps back: a batch keeps the order it was given in (RFC 9562 §6.2, method 3: the sub-millisecond bits count on).
type IDs struct {
	now  func() time.Time
	mu   sync.Mutex
	last uint64 // milliseconds<<12 | counter
	rnd  [512]byte
	left int
}

// NewIDs makes a source of ids that reads the time from now.
func NewIDs(now func() time.Time) *IDs { return &IDs{now: now} }

// Message makes an id for a message.
func (g *IDs) Message() MessageID { return MessageID(g.next()) }

// Campaign makes an id for a campaign.
func (g *IDs) Campaign() CampaignID { return CampaignID(g.next()) }

// CampaignOf makes an id for the campaign that a request asks for, given a print of the request: see CampaignID.IsOf.
func (g *IDs) CampaignOf(request [32]byte) CampaignID {
	id := CampaignID(g.next())
	copy(id[8:], request[:8])
	id[8] = id[8]&0x3f | 0x80
	return id
}

// IsOf reports whether CampaignOf has made the id for a request with this print, at whatever time. It takes the place of
// the 62 random bits of a UUIDv7.
func (id CampaignID) IsOf(request [32]byte) bool {
	return id[8] == request[0]&0x3f|0x80 && [7]byte(id[9:]) == [7]byte(request[1:8])
}

// Account makes an id for a connector account.
func (g *IDs) Account() AccountID { return AccountID(g.next()) }

// Key makes an id for an API key.
func (g *IDs) Key() KeyID { return KeyID(g.next()) }

func (g *IDs) next() [16]byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.now()
	stamp := uint64(t.UnixMilli())<<12 | uint64(t.Nanosecond()%1e6)*4096/1e6
	if stamp <= g.last {
		stamp = g.last + 1
	}
	g.last = stamp
	if g.left < 8 {
		_, _ = rand.Read(g.rnd[:]) // crypto/rand.Read never fails: it stops the program instead
		g.left = len(g.rnd)
	}
	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], stamp>>12<<16|0x7000|stamp&0xfff)
	copy(id[8:], g.rnd[len(g.rnd)-g.left:][:8])
	g.left -= 8
	id[8] = id[8]&0x3f | 0x80
	return id
}

// Time returns the instant, to the millisecond, at which an id was made.
func (id MessageID) Time() time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16)).UTC()
}

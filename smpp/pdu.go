// Package smpp reads and writes the protocol data units of the Short Message Peer-to-Peer protocol, version 3.4.
//
// Clause numbers are those of "Short Message Peer to Peer Protocol Specification v3.4", issue 1.2. The package holds no
// connection and no state beyond a Reader's buffer: sessions belong to the connector and to the simulator. Functions
// named Append add one whole PDU to a buffer and allocate nothing when it has room.
package smpp

import "encoding/binary"

// Command is a command_id (§5.1.2.1). The answer to a command has the top bit set.
type Command uint32

// The commands that this package knows.
const (
	GenericNack         Command = 0x80000000
	BindReceiver        Command = 0x00000001
	BindReceiverResp    Command = 0x80000001
	BindTransmitter     Command = 0x00000002
	BindTransmitterResp Command = 0x80000002
	SubmitSM            Command = 0x00000004
	SubmitSMResp        Command = 0x80000004
	DeliverSM           Command = 0x00000005
	DeliverSMResp       Command = 0x80000005
	Unbind              Command = 0x00000006
	UnbindResp          Command = 0x80000006
	BindTransceiver     Command = 0x00000009
	BindTransceiverResp Command = 0x80000009
	Outbind             Command = 0x0000000B
	EnquireLink         Command = 0x00000015
	EnquireLinkResp     Command = 0x80000015
	AlertNotification   Command = 0x00000102
)

// Resp returns the command that answers c.
func (c Command) Resp() Command { return c | 0x80000000 }

// IsResp reports whether c is an answer. An answer is never answered, not even by generic_nack.
func (c Command) IsResp() bool { return c&0x80000000 != 0 }

// Sizes of a PDU in octets. The specification sets no upper limit; MaxLen has room for a message_payload of 60,000.
const (
	HeaderLen = 16
	MaxLen    = 64 << 10
)

// MaxSequence is the highest sequence_number (§3.2); after it comes 1 again.
const MaxSequence = 0x7FFFFFFF

// Header is the head of a PDU (§3.2).
type Header struct {
	Command  Command
	Status   Status
	Sequence uint32
}

// Append adds a PDU that is nothing but its header: enquire_link, unbind, their answers, generic_nack.
func (h Header) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, HeaderLen)
	return h.fields(dst)
}

func (h Header) fields(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.Command))
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.Status))
	return binary.BigEndian.AppendUint32(dst, h.Sequence)
}

// open starts a PDU with a body; finish writes its length.
func (h Header) open(dst []byte) []byte { return h.fields(append(dst, 0, 0, 0, 0)) }

func finish(dst []byte, start int) []byte {
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start))
	return dst
}

// SetSequence writes the sequence number of the PDU at the start of pdu, so that a PDU can be built before its number
// is known.
func SetSequence(pdu []byte, sequence uint32) { binary.BigEndian.PutUint32(pdu[12:], sequence) }

package smpp

import "fmt"

// Status is a command_status (§5.1.3): what the other side made of a request.
type Status uint32

// The statuses that a program has to tell apart. Those of §5.1.3 without a name here still have one in String.
const (
	ROK              Status = 0x00
	RInvMsgLen       Status = 0x01
	RInvCmdLen       Status = 0x02
	RInvCmdID        Status = 0x03
	RInvBndSts       Status = 0x04
	RAlyBnd          Status = 0x05
	RInvPrtFlg       Status = 0x06
	RInvRegDlvFlg    Status = 0x07
	RSysErr          Status = 0x08
	RInvSrcAdr       Status = 0x0A
	RInvDstAdr       Status = 0x0B
	RInvMsgID        Status = 0x0C
	RBindFail        Status = 0x0D
	RInvPaswd        Status = 0x0E
	RInvSysID        Status = 0x0F
	RMsgQFul         Status = 0x14
	RInvSerTyp       Status = 0x15
	RInvESMClass     Status = 0x43
	RSubmitFail      Status = 0x45
	RInvSrcTON       Status = 0x48
	RInvSrcNPI       Status = 0x49
	RInvDstTON       Status = 0x50
	RInvDstNPI       Status = 0x51
	RInvSysTyp       Status = 0x53
	RInvRepFlag      Status = 0x54
	RThrottled       Status = 0x58
	RInvSched        Status = 0x61
	RInvExpiry       Status = 0x62
	RInvDftMsgID     Status = 0x63
	RXTAppn          Status = 0x64 // ESME receiver: temporary application error
	RXPAppn          Status = 0x65 // ESME receiver: permanent application error
	RXRAppn          Status = 0x66 // ESME receiver: message rejected
	RInvOptParStream Status = 0xC0
	ROptParNotAllwd  Status = 0xC1
	RInvParLen       Status = 0xC2
	RMissingOptParam Status = 0xC3
	RInvOptParamVal  Status = 0xC4
	RDeliveryFailure Status = 0xFE
	RUnknownErr      Status = 0xFF
)

// String returns the name of §5.1.3, such as ESME_RTHROTTLED, or ESME_ and the number for one that is reserved or the
// provider's own (0x400–0x4FF).
func (s Status) String() string {
	if name, ok := statusNames[s]; ok {
		return name
	}
	return fmt.Sprintf("ESME_0x%08X", uint32(s))
}

// statusNames is never written after it is made.
var statusNames = map[Status]string{
	0x00: "ESME_ROK", 0x01: "ESME_RINVMSGLEN", 0x02: "ESME_RINVCMDLEN", 0x03: "ESME_RINVCMDID", 0x04: "ESME_RINVBNDSTS",
	0x05: "ESME_RALYBND", 0x06: "ESME_RINVPRTFLG", 0x07: "ESME_RINVREGDLVFLG", 0x08: "ESME_RSYSERR",
	0x0A: "ESME_RINVSRCADR", 0x0B: "ESME_RINVDSTADR", 0x0C: "ESME_RINVMSGID", 0x0D: "ESME_RBINDFAIL",
	0x0E: "ESME_RINVPASWD", 0x0F: "ESME_RINVSYSID", 0x11: "ESME_RCANCELFAIL", 0x13: "ESME_RREPLACEFAIL",
	0x14: "ESME_RMSGQFUL", 0x15: "ESME_RINVSERTYP", 0x33: "ESME_RINVNUMDESTS", 0x34: "ESME_RINVDLNAME",
	0x40: "ESME_RINVDESTFLAG", 0x42: "ESME_RINVSUBREP", 0x43: "ESME_RINVESMCLASS", 0x44: "ESME_RCNTSUBDL",
	0x45: "ESME_RSUBMITFAIL", 0x48: "ESME_RINVSRCTON", 0x49: "ESME_RINVSRCNPI", 0x50: "ESME_RINVDSTTON",
	0x51: "ESME_RINVDSTNPI", 0x53: "ESME_RINVSYSTYP", 0x54: "ESME_RINVREPFLAG", 0x55: "ESME_RINVNUMMSGS",
	0x58: "ESME_RTHROTTLED", 0x61: "ESME_RINVSCHED", 0x62: "ESME_RINVEXPIRY", 0x63: "ESME_RINVDFTMSGID",
	0x64: "ESME_RX_T_APPN", 0x65: "ESME_RX_P_APPN", 0x66: "ESME_RX_R_APPN", 0x67: "ESME_RQUERYFAIL",
	0xC0: "ESME_RINVOPTPARSTREAM", 0xC1: "ESME_ROPTPARNOTALLWD", 0xC2: "ESME_RINVPARLEN",
	0xC3: "ESME_RMISSINGOPTPARAM", 0xC4: "ESME_RINVOPTPARAMVAL", 0xFE: "ESME_RDELIVERYFAILURE",
	0xFF: "ESME_RUNKNOWNERR",
}

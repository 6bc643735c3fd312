package smpp

import (
	"context"
	"errors"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/smpp"
)

// classes says what the command_status of a submit_sm_resp or generic_nack means (SMPP 3.4 §5.1.3). What is not here is
// reserved or the provider's own: Transient and not Known.
var classes = map[smpp.Status]delivery.Class{
	smpp.RThrottled: delivery.Throttled,
	smpp.RMsgQFul:   delivery.Throttled,

	smpp.RSysErr:          delivery.Transient,
	smpp.RSubmitFail:      delivery.Transient,
	smpp.RXTAppn:          delivery.Transient,
	smpp.RDeliveryFailure: delivery.Transient,
	smpp.RUnknownErr:      delivery.Transient,

	smpp.RInvDstAdr: delivery.BadRecipient,

	smpp.RInvBndSts: delivery.ConnectorDown,
	smpp.RAlyBnd:    delivery.ConnectorDown,
	smpp.RBindFail:  delivery.ConnectorDown,
	smpp.RInvPaswd:  delivery.ConnectorDown,
	smpp.RInvSysID:  delivery.ConnectorDown,
	smpp.RInvSysTyp: delivery.ConnectorDown,

	smpp.RInvMsgLen:       delivery.Rejected,
	smpp.RInvCmdLen:       delivery.Rejected,
	smpp.RInvCmdID:        delivery.Rejected,
	smpp.RInvPrtFlg:       delivery.Rejected,
	smpp.RInvRegDlvFlg:    delivery.Rejected,
	smpp.RInvSrcAdr:       delivery.Rejected,
	smpp.RInvMsgID:        delivery.Rejected,
	smpp.RInvSerTyp:       delivery.Rejected,
	smpp.RInvESMClass:     delivery.Rejected,
	smpp.RInvSrcTON:       delivery.Rejected,
	smpp.RInvSrcNPI:       delivery.Rejected,
	smpp.RInvDstTON:       delivery.Rejected,
	smpp.RInvDstNPI:       delivery.Rejected,
	smpp.RInvRepFlag:      delivery.Rejected,
	smpp.RInvSched:        delivery.Rejected,
	smpp.RInvExpiry:       delivery.Rejected,
	smpp.RInvDftMsgID:     delivery.Rejected,
	smpp.RXPAppn:          delivery.Rejected,
	smpp.RXRAppn:          delivery.Rejected,
	smpp.RInvOptParStream: delivery.Rejected,
	smpp.ROptParNotAllwd:  delivery.Rejected,
	smpp.RInvParLen:       delivery.Rejected,
	smpp.RMissingOptParam: delivery.Rejected,
	smpp.RInvOptParamVal:  delivery.Rejected,
}

// refused returns the failure that a status means.
func refused(status smpp.Status) *delivery.Failure {
	class, known := classes[status]
	if !known {
		class = delivery.Transient
	}
	return &delivery.Failure{Class: class, Code: status.String(), Detail: "the SMSC refused the message", Known: known}
}

// bindRefused returns the failure that the answer to a bind means. Whatever the code, the account cannot work as it is.
func bindRefused(status smpp.Status) *delivery.Failure {
	_, known := classes[status]
	return &delivery.Failure{
		Class: delivery.ConnectorDown, Code: status.String(), Detail: "the SMSC refused the bind", Known: known,
	}
}

func down(code, detail string, err error) *delivery.Failure {
	return &delivery.Failure{Class: delivery.ConnectorDown, Code: code, Detail: detail, Known: true, Err: err}
}

// canceled is the failure of a Send whose context ended before anything left. The account is not to blame.
func canceled(ctx context.Context) *delivery.Failure {
	return &delivery.Failure{
		Class: delivery.Transient, Code: "canceled", Detail: "stopped before anything was sent", Known: true, Err: ctx.Err(),
	}
}

func doubt(code, detail string, err error) *delivery.Failure {
	return &delivery.Failure{Class: delivery.InDoubt, Code: code, Detail: detail, Known: true, Err: err}
}

// partly turns the failure of a later part into the failure of the message: the SMSC has taken parts before it, so a
// second attempt may send those twice.
func partly(err error) error {
	var f *delivery.Failure
	if !errors.As(err, &f) {
		return doubt("partly_sent", "some parts were taken before the connection failed", err)
	}
	return doubt(f.Code, "some parts were taken before this one failed", err)
}

// Network types and codes of network_error_code: 3 is GSM, its code 1 is MAP's unknownSubscriber (3GPP TS 29.002
// §17.6.6).
const (
	networkGSM        = 3
	unknownSubscriber = 1
)

// outcome reads what a receipt says. skip is true for a state that is on its way: it changes nothing.
//
// UNKNOWN ("message is in invalid state", §5.2.28) counts as undelivered: the SMSC has lost track, and no better news
// will come. Should it come all the same, a later DELIVRD corrects it. Of the error codes, which each SMSC numbers in
// its own way, only MAP's unknown subscriber says something about the number: as network_error_code, or as err:001
// beside UNDELIV, which is how gateways write that MAP error.
func outcome(r *smpp.Receipt) (out delivery.Receipt, skip bool) {
	out = delivery.Receipt{Code: r.State.String(), Detail: "stat " + r.State.String()}
	if r.Err != "" && r.State != smpp.StateDelivered && len(r.Err) <= 16 && printable(r.Err) {
		out.Code += "/" + r.Err
		out.Detail += ", err " + r.Err
	}
	switch r.State {
	case smpp.StateDelivered:
		out.Status = delivery.StatusDelivered
	case smpp.StateExpired, smpp.StateDeleted, smpp.StateUndeliverable, smpp.StateRejected, smpp.StateUnknown:
		out.Status = delivery.StatusUndelivered
	default:
		return delivery.Receipt{}, true
	}
	if r.State == smpp.StateUndeliverable &&
		(r.NetworkType == networkGSM && r.NetworkCode == unknownSubscriber || r.NetworkType == 0 && r.Err == "001") {
		out.Class = delivery.BadRecipient
	}
	return out, false
}

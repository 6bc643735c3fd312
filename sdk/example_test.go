package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/msgctl/msgctl/sdk"
)

// engine stands for an engine in these examples.
func engine(status int, body string) *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
}

func ExampleClient_Send() {
	srv := engine(202, `{"id":"msg_01jdm","channel":"sms","status":"queued","segments":1}`)
	defer srv.Close()
	c := sdk.New(sdk.WithURL(srv.URL), sdk.WithKey("mk_test_example")) // sdk.New() reads MSGCTL_URL and MSGCTL_API_KEY
	defer c.Close()

	m, err := c.Send(context.Background(), sdk.SMS{To: "+12025550100", Text: "Your code is 123456"},
		sdk.TTL(2*time.Minute), sdk.InLane(sdk.Urgent), sdk.IdempotencyKey("login-4711"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.ID, m.Status)
	// Output: msg_01jdm queued
}

func ExampleFallback() {
	srv := engine(202, `{"id":"msg_01jdm","channel":"whatsapp","status":"queued","legs":[
		{"channel":"whatsapp","to":"+12025550100","within":"5m","until":"delivered"},
		{"channel":"sms","to":"+12025550100","until":"delivered"}]}`)
	defer srv.Close()
	c := sdk.New(sdk.WithURL(srv.URL), sdk.WithKey("mk_test_example"))
	defer c.Close()

	// WhatsApp first; when it is not delivered within five minutes, or refused, an SMS. It is one message all the while.
	m, err := c.Send(context.Background(), sdk.WhatsApp{To: "+12025550100", Template: "order_paid", Lang: "en"},
		sdk.Within(5*time.Minute, sdk.Delivered),
		sdk.Fallback(sdk.SMS{To: "+12025550100", Text: "Your order is paid"}))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, leg := range m.Legs {
		fmt.Println(leg.Channel, leg.Within)
	}
	// Output:
	// whatsapp 5m
	// sms
}

func ExampleError() {
	srv := engine(422, `{"code":"invalid_phone","title":"Not a phone number","status":422,
		"errors":[{"pointer":"/to","detail":"is too short"}],"request_id":"req_7"}`)
	defer srv.Close()
	c := sdk.New(sdk.WithURL(srv.URL), sdk.WithKey("mk_test_example"))
	defer c.Close()

	_, err := c.Send(context.Background(), sdk.SMS{To: "+1202", Text: "hi"})
	var e *sdk.Error
	switch {
	case errors.Is(err, sdk.ErrRateLimited):
		fmt.Println("later")
	case errors.As(err, &e):
		fmt.Println(e.Code, e.Fields[0].Pointer, e.Fields[0].Detail, e.Retryable())
	}
	// Output: invalid_phone /to is too short false
}

func ExampleClient_SendAll() {
	srv := engine(200, `{"row":1,"id":"msg_01a","status":"queued"}
{"row":2,"error":{"code":"invalid_phone","detail":"is too short"}}
`)
	defer srv.Close()
	c := sdk.New(sdk.WithURL(srv.URL), sdk.WithKey("mk_test_example"))
	defer c.Close()

	rows := func(yield func(sdk.Sendable) bool) {
		for _, to := range []string{"+12025550100", "+1"} {
			if !yield(sdk.SMS{To: to, Text: "Hello"}) {
				return
			}
		}
	}
	// After a crash the same call with the same run name and rows accepts nothing twice.
	for r, err := range c.SendAll(context.Background(), rows, sdk.Resume("diwali-2026")) {
		switch {
		case err != nil:
			fmt.Println("stopped:", err)
		case r.Error != nil:
			fmt.Println(r.Row, r.Error.Code)
		default:
			fmt.Println(r.Row, r.ID)
		}
	}
	// Output:
	// 1 msg_01a
	// 2 invalid_phone
}

func ExampleMessages_All() {
	srv := engine(200, `{"data":[{"id":"msg_01a","status":"failed","reason":"unknown_subscriber"}],"has_more":false}`)
	defer srv.Close()
	c := sdk.New(sdk.WithURL(srv.URL), sdk.WithKey("mk_test_example"))
	defer c.Close()

	for m, err := range c.Messages.All(context.Background(), sdk.MessageQuery{Status: sdk.Failed}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(m.ID, m.Reason)
	}
	// Output: msg_01a unknown_subscriber
}

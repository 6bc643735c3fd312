package simulator

import (
	"bytes"
	"encoding/base64"
	"strings"
)

// auth logs in by PLAIN (RFC 4616) or LOGIN. The user name becomes the session's account.
func (s *mailSession) auth(arg string) bool {
	mechanism, initial, _ := strings.Cut(arg, " ")
	switch {
	case !s.greeted || s.mailed || s.account != mailAnonymous:
		return s.refuse("503 5.5.1 not now")
	case strings.EqualFold(mechanism, "PLAIN"):
		raw, ok := s.ask("", initial)
		if !ok {
			return s.refuse("501 5.5.2 cannot read the answer")
		}
		parts := bytes.Split(raw, []byte{0})
		if len(parts) != 3 {
			return s.refuse("501 5.5.2 cannot read the answer")
		}
		return s.login(string(parts[1]), string(parts[2]))
	case strings.EqualFold(mechanism, "LOGIN"):
		user, ok := s.ask("Username:", initial)
		if !ok {
			return s.refuse("501 5.5.2 cannot read the answer")
		}
		password, ok := s.ask("Password:", "")
		if !ok {
			return s.refuse("501 5.5.2 cannot read the answer")
		}
		return s.login(string(user), string(password))
	}
	return s.refuse("504 5.5.4 unknown mechanism")
}

// ask sends a challenge and reads the answer, unless the client gave it with the command.
func (s *mailSession) ask(challenge, initial string) ([]byte, bool) {
	if initial == "" {
		s.reply("334 " + base64.StdEncoding.EncodeToString([]byte(challenge)))
		line, err := s.r.ReadSlice('\n')
		if err != nil {
			return nil, false
		}
		initial = strings.TrimRight(string(line), "\r\n")
	}
	if initial == "=" {
		return nil, true
	}
	raw, err := base64.StdEncoding.DecodeString(initial)
	return raw, err == nil
}

func (s *mailSession) login(user, password string) bool {
	want := s.sim.opt.Password
	switch fault := s.sim.script.broken(user); {
	case fault == Down:
		return false
	case user == "" || user == mailAnonymous || fault == BadLogin || want != "" && password != want:
		return s.refuse("535 5.7.8 wrong user name or password")
	}
	s.account = user
	s.reply("235 2.7.0 welcome")
	return true
}

package connectors

import (
	"net/url"
	"sort"
	"strconv"
	"time"
)

// Validate checks given against the kind's declarations and returns the complete settings with defaults filled in. The
// error is a *SettingError for the first wrong key in alphabetical order.
func (k *Kind) Validate(given map[string]string) (Settings, error) {
	keys := make([]string, 0, len(given))
	for key := range given {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		s, ok := k.Setting(key)
		if !ok {
			return nil, &SettingError{Key: key, Reason: "is not a setting of kind " + k.Name + "; see msgctl connector types " + k.Name}
		}
		if reason := s.check(given[key]); reason != "" {
			return nil, &SettingError{Key: key, Reason: reason}
		}
	}
	full := make(Settings, len(k.Settings))
	for _, s := range k.Settings {
		v, ok := given[s.Key]
		switch {
		case ok && v != "":
			full[s.Key] = v
		case s.Required:
			return nil, &SettingError{Key: s.Key, Reason: "is required: " + s.Doc}
		case s.Default != "":
			full[s.Key] = s.Default
		}
	}
	return full, nil
}

// check returns what is wrong with v, or "".
func (s Setting) check(v string) string {
	if v == "" {
		return ""
	}
	switch s.Type {
	case Number:
		if n, err := strconv.Atoi(v); err != nil || n < 0 {
			return "must be a whole number of 0 or more"
		}
	case Bool:
		if v != "true" && v != "false" {
			return "must be true or false"
		}
	case Duration:
		if d, err := time.ParseDuration(v); err != nil || d < 0 {
			return "must be a duration such as 30s or 2m"
		}
	case URL:
		u, err := url.Parse(v)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.User != nil {
			return "must be an http or https URL without user name"
		}
	}
	if len(v) > 16<<10 {
		return "is longer than 16 KiB"
	}
	return ""
}

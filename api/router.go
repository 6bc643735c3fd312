package api

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// router finds routes. net/http.ServeMux is not used for three reasons: it has no patterns such as {id}:cancel, it
// answers a path with dots by a redirect, and it cannot answer with a problem document.
type router struct {
	fixed map[string][]*route // whole paths
	named map[int][]*route    // by number of segments
}

// segment is a part of a pattern: fixed text, or a name with an optional verb behind a colon.
type segment struct {
	text string // fixed text
	name string // name of a variable; "" = fixed
	verb string // such as ":cancel"
}

func newRouter(routes []*route) *router {
	r := &router{fixed: map[string][]*route{}, named: map[int][]*route{}}
	for _, rt := range routes {
		rt.intake = intakeOf(rt)
		if !strings.Contains(rt.path, "{") {
			r.fixed[rt.path] = append(r.fixed[rt.path], rt)
			continue
		}
		for part := range strings.SplitSeq(rt.path[1:], "/") {
			if !strings.HasPrefix(part, "{") {
				rt.segments = append(rt.segments, segment{text: part})
				continue
			}
			name, verb, _ := strings.Cut(part[1:], "}")
			rt.segments = append(rt.segments, segment{name: name, verb: verb})
		}
		r.named[len(rt.segments)] = append(r.named[len(rt.segments)], rt)
	}
	return r
}

// find returns the route and the values of its variables. allow lists the methods of the path when it exists and takes
// another method.
func (r *router) find(method string, u *url.URL) (rt *route, values [2]string, allow []string) {
	path := u.EscapedPath()
	candidates, ok := r.fixed[path]
	if !ok {
		if len(path) < 2 || len(path) > 4096 || strings.Count(path, "/") > 8 {
			return nil, values, nil
		}
		parts := strings.Split(path[1:], "/")
		candidates = nil
		for _, c := range r.named[len(parts)] {
			if v, ok := c.match(parts); ok {
				if c.takes(method) {
					return c, v, nil
				}
				candidates = append(candidates, c)
			}
		}
	}
	for _, c := range candidates {
		if c.takes(method) {
			return c, values, nil
		}
		if !slices.Contains(allow, c.method) {
			allow = append(allow, c.method)
		}
	}
	slices.Sort(allow)
	return nil, values, allow
}

// takes reports whether a route serves a method; HEAD is GET without a body, which net/http leaves out.
func (rt *route) takes(method string) bool {
	return rt.method == method || rt.method == anyMethod || rt.method == http.MethodGet && method == http.MethodHead
}

func (rt *route) match(parts []string) (values [2]string, ok bool) {
	n := 0
	for i, s := range rt.segments {
		part := parts[i]
		if s.name == "" {
			if part != s.text {
				return values, false
			}
			continue
		}
		value, ok := strings.CutSuffix(part, s.verb)
		if !ok || value == "" || strings.Contains(value, ":") {
			return values, false
		}
		value, err := url.PathUnescape(value)
		if err != nil {
			return values, false
		}
		values[n] = value
		n++
	}
	return values, true
}

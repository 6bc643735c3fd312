package api

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
)

// openAPI writes the description of the API (OpenAPI 3.1.0) from the table of routes and the wire types.
func openAPI(routes []*route, version, publicURL string) []byte {
	s := schemas{}
	problem := map[string]any{
		"description": "A problem (RFC 9457).",
		"content": map[string]any{
			"application/problem+json": map[string]any{"schema": s.of(reflect.TypeFor[sdk.Error]())},
		},
	}
	paths := map[string]map[string]any{}
	for _, rt := range routes {
		methods := []string{rt.method}
		if rt.method == anyMethod {
			methods = []string{http.MethodGet, http.MethodPost}
		}
		for i, method := range methods {
			id := rt.id
			if i > 0 {
				id += method
			}
			if paths[rt.path] == nil {
				paths[rt.path] = map[string]any{}
			}
			paths[rt.path][strings.ToLower(method)] = s.operation(rt, id)
		}
	}
	doc := map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{
			"title": "msgctl", "version": version,
			"description": "Sends SMS, WhatsApp, e-mail and webhooks. Every error is a problem document with a stable code.",
		},
		"paths": paths,
		"components": map[string]any{
			"schemas": s, "responses": map[string]any{"Problem": problem},
			"securitySchemes": map[string]any{"key": map[string]any{"type": "http", "scheme": "bearer", "bearerFormat": "mk_…"}},
		},
	}
	if publicURL != "" {
		doc["servers"] = []any{map[string]any{"url": publicURL}}
	}
	out, err := json.MarshalIndent(doc, "", " ")
	if err != nil {
		panic(err) // only maps and strings: a mistake in this package
	}
	return out
}

// keyRoutes are the routes that take an Idempotency-Key, with what it does there.
var keyRoutes = map[string]string{
	"sendMessage":    "The same key with the same body is accepted once; the answer is repeated for 72 hours.",
	"sendBatch":      "The same key with the same body is accepted once; the answer is repeated for 72 hours.",
	"createCampaign": "The same key with the same body is answered with the campaign that it has made.",
}

func (s schemas) operation(rt *route, id string) map[string]any {
	op := map[string]any{"operationId": id, "summary": rt.doc, "security": []any{}}
	if rt.scope != public && rt.scope != provider {
		op["security"] = []any{map[string]any{"key": []any{}}}
	}
	var params []any
	for part := range strings.SplitSeq(rt.path, "/") {
		if strings.HasPrefix(part, "{") {
			name, _, _ := strings.Cut(part[1:], "}")
			params = append(params, map[string]any{
				"name": name, "in": "path", "required": true, "schema": map[string]any{"type": "string"},
			})
		}
	}
	for _, p := range rt.query {
		params = append(params, map[string]any{
			"name": p.name, "in": "query", "description": p.doc, "schema": map[string]any{"type": p.kind},
		})
	}
	if rt.scope == tenant || rt.scope == either {
		params = append(params, map[string]any{
			"name": TenantHeader, "in": "header", "description": "Operator's keys only: the tenant to act for.",
			"schema": map[string]any{"type": "string"},
		})
	}
	if doc, takes := keyRoutes[rt.id]; takes {
		params = append(params, map[string]any{
			"name": "Idempotency-Key", "in": "header", "schema": map[string]any{"type": "string", "maxLength": 255},
			"description": doc,
		})
	}
	if params != nil {
		op["parameters"] = params
	}
	if rt.in != nil {
		media := rt.media
		if media == nil {
			media = []string{"application/json"}
		}
		content := map[string]any{}
		for _, m := range media {
			content[m] = map[string]any{"schema": s.of(reflect.TypeOf(rt.in))}
		}
		op["requestBody"] = map[string]any{"required": rt.id != "renderTemplate", "content": content}
	}
	answer := map[string]any{"description": http.StatusText(rt.status)}
	if rt.out != nil {
		media := rt.outMedia
		if media == "" {
			media = "application/json"
		}
		answer["content"] = map[string]any{media: map[string]any{"schema": s.of(reflect.TypeOf(rt.out))}}
	}
	op["responses"] = map[string]any{
		strconv.Itoa(rt.status): answer,
		"default":               map[string]any{"$ref": "#/components/responses/Problem"},
	}
	if rt.method == http.MethodPut && rt.status == http.StatusOK && strings.Contains(rt.path, "{name}") {
		op["responses"].(map[string]any)["201"] = answer // it was not there before
	}
	return op
}

// schemas are the named types of the description: JSON Schema by name.
type schemas map[string]any

// of returns the schema of a type, and adds the structs in it to s.
func (s schemas) of(t reflect.Type) map[string]any {
	switch t {
	case reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case reflect.TypeFor[json.RawMessage]():
		return map[string]any{}
	case reflect.TypeFor[sdk.Channel]():
		return enum(delivery.Channels)
	case reflect.TypeFor[sdk.Status]():
		return enum(delivery.Statuses)
	case reflect.TypeFor[sdk.Lane]():
		return enum([]delivery.Lane{delivery.Urgent, delivery.Normal, delivery.Bulk})
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		name := schemaName(t)
		if _, done := s[name]; !done {
			s[name] = nil // a type that holds itself ends here
			s[name] = s.object(t)
		}
		return map[string]any{"$ref": "#/components/schemas/" + name}
	}
	return map[string]any{} // any
}

func (s schemas) object(t reflect.Type) map[string]any {
	properties, required := map[string]any{}, []string{}
	for i := range t.NumField() {
		f := t.Field(i)
		name := jsonName(f)
		if name == "" {
			continue
		}
		properties[name] = s.of(f.Type)
		if !strings.Contains(f.Tag.Get("json"), ",omitempty") {
			required = append(required, name)
		}
	}
	out := map[string]any{"type": "object", "properties": properties}
	if len(required) > 0 {
		out["required"] = required
	}
	if strings.HasSuffix(t.Name(), "Request") {
		out["additionalProperties"] = false
	}
	return out
}

// schemaName is the type's name; Page[T] becomes PageT, sdk.Error is called Problem.
func schemaName(t reflect.Type) string {
	name := t.Name()
	if outer, inner, generic := strings.Cut(name, "["); generic {
		inner = strings.TrimSuffix(inner, "]")
		name = outer + inner[strings.LastIndexByte(inner, '.')+1:]
	}
	if name == "Error" {
		return "Problem"
	}
	return strings.ToUpper(name[:1]) + name[1:]
}

func enum[T interface{ String() string }](values []T) map[string]any {
	var names []string
	for _, v := range values {
		names = append(names, v.String())
	}
	return map[string]any{"type": "string", "enum": names}
}

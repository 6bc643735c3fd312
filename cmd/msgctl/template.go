package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

func templateView() view {
	return view{
		cols: []string{"name", "channel", "version", "text", "created_at"},
		wide: []string{"subject", "html", "approved", "event", "data", "variables"},
		id:   "name", none: "no templates; make one: msgctl template put NAME --channel sms --text \"Hello {{ name }}\"",
	}
}

func oneTemplate() view {
	v := templateView()
	return view{id: v.id, cols: []string{
		"name", "channel", "version", "subject", "text", "html", "approved", "event", "data", "variables", "created_at",
	}}
}

func (a *app) templateCmd() *cobra.Command {
	return a.group("template", "Templates: texts with variables, in versions",
		a.templatePut(), a.templateLs(), a.templateGet(), a.templateVersions(), a.templateRender())
}

func (a *app) templatePut() *cobra.Command {
	var (
		r              sdk.TemplateRequest
		channel, file  string
		html, approved string
		params         []string
	)
	cmd := &cobra.Command{
		Use: "put NAME", Short: "Store the next version of a template", Args: a.args("NAME"),
		Long: "Store the next version of a template. Its texts are Liquid: {{ first_name }},\n" +
			"{{ name | default: \"there\" }}, {% if vip %} … {% endif %}.\n\n" +
			"A FILE is the text; one that ends in .html is the HTML of an e-mail, and .yaml\n" +
			"or .json holds the fields of the API (channel, text, subject, html …).",
		Example: "  msgctl template put otp --channel sms --text \"Your code is {{ code }}\"\n" +
			"  msgctl template put welcome --channel email --subject \"Hi\" --file w.html",
		RunE: func(cmd *cobra.Command, args []string) error {
			if file != "" {
				if err := templateFile(file, &r); err != nil {
					return err
				}
			}
			if channel != "" {
				if err := oneOf("channel", channel, channels()); err != nil {
					return err
				}
				r.Channel = sdk.Channel(channel)
			}
			if r.Channel == "" {
				return &usageError{what: "--channel is missing", fix: "one of: " + strings.Join(channels(), ", ")}
			}
			if html != "" {
				var err error
				if r.HTML, err = a.fileText(html); err != nil {
					return err
				}
			}
			if approved != "" {
				name, lang, ok := strings.Cut(approved, "/")
				if !ok || name == "" || lang == "" {
					return &usageError{
						what: "--approved: needs a name and a language",
						fix:  "such as --approved order_shipped/en_US",
					}
				}
				r.Approved = &sdk.Approved{Name: name, Language: lang, Params: params}
			}
			if r.Text == "" && r.HTML == "" && r.Approved == nil && r.Data == "" {
				return &usageError{
					what: "a template needs content",
					fix:  "--text, --file, --html, --approved or --data",
				}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			t, err := c.Templates.Put(cmd.Context(), args[0], r)
			if err != nil {
				return err
			}
			return a.object(oneTemplate(), t)
		},
	}
	f := cmd.Flags()
	f.StringVar(&channel, "channel", "", "`CHANNEL`: sms, whatsapp, email or webhook")
	f.StringVar(&file, "file", "", "read it from `FILE`")
	f.StringVar(&r.Text, "text", "", "the `TEXT`")
	f.StringVar(&r.Subject, "subject", "", "e-mail: the `TEXT` of the subject")
	f.StringVar(&html, "html", "", "e-mail: `HTML`, or @FILE")
	f.StringVar(&approved, "approved", "", "WhatsApp: an approved template, `NAME/LANG`")
	f.StringArrayVar(&params, "param", nil, "WhatsApp: the next parameter of it, `TEXT`")
	f.StringVar(&r.Event, "event", "", "webhook: the event's `TYPE`")
	f.StringVar(&r.Data, "data", "", "webhook: Liquid that makes `JSON`")
	_ = cmd.RegisterFlagCompletionFunc("channel", fixed(channels()...))
	return a.shape(cmd, sdk.StoredTemplate{})
}

// templateFile fills a request from a file, by the file's kind. Flags go before it.
func templateFile(path string, r *sdk.TemplateRequest) error {
	text, err := readFile(path)
	if err != nil {
		return err
	}
	switch strings.ToLower(filepath.Ext(path)) {
	case ".yaml", ".yml", ".json":
		doc, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			return &usageError{what: path + ": " + oneLine(yaml.FormatError(err, false, false))}
		}
		var in sdk.TemplateRequest
		dec := json.NewDecoder(bytes.NewReader(doc))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&in); err != nil {
			return &usageError{
				what: path + ": " + strings.TrimPrefix(err.Error(), "json: "),
				fix:  "known are: " + strings.Join(templateKeys(), ", "),
			}
		}
		if r.Text != "" {
			in.Text = r.Text
		}
		if r.Subject != "" {
			in.Subject = r.Subject
		}
		if r.Event != "" {
			in.Event = r.Event
		}
		if r.Data != "" {
			in.Data = r.Data
		}
		*r = in
	case ".html", ".htm":
		r.HTML = text
	default:
		if r.Text == "" {
			r.Text = strings.TrimRight(text, "\r\n")
		}
	}
	return nil
}

func templateKeys() []string {
	return []string{"channel", "text", "subject", "html", "approved", "event", "data"}
}

func (a *app) templateLs() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List templates", Args: a.args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			all, err := c.Templates.List(cmd.Context())
			if err != nil {
				return err
			}
			return list(a, templateView(), all)
		},
	}
	return a.shape(cmd, sdk.StoredTemplate{})
}

func (a *app) templateGet() *cobra.Command {
	version := 0
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Show a template", Args: a.args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			t, err := c.Templates.Get(cmd.Context(), args[0], version)
			if err != nil {
				return err
			}
			return a.object(oneTemplate(), t)
		},
	}
	cmd.Flags().IntVar(&version, "version", 0, "the version `N`; default the newest")
	return a.shape(cmd, sdk.StoredTemplate{})
}

func (a *app) templateVersions() *cobra.Command {
	cmd := &cobra.Command{
		Use: "versions NAME", Short: "List the versions of a template, newest first", Args: a.args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			all, err := c.Templates.Versions(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return list(a, templateView(), all)
		},
	}
	return a.shape(cmd, sdk.StoredTemplate{})
}

func (a *app) templateRender() *cobra.Command {
	var (
		r    sdk.RenderRequest
		vars []string
		file string
	)
	cmd := &cobra.Command{
		Use: "render NAME", Short: "Show what one person would get", Args: a.args("NAME"),
		Example: "  msgctl template render otp --var code=123456",
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if r.Vars, err = a.readVars(vars, file); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			got, err := c.Templates.Render(cmd.Context(), args[0], r)
			if err != nil {
				return err
			}
			if !a.human() {
				return a.object(view{cols: []string{
					"subject", "text", "html", "approved", "event", "data", "segments", "encoding",
				}}, got)
			}
			_, err = fmt.Fprint(a.out, renderedText(got))
			return err
		},
	}
	f := cmd.Flags()
	f.IntVar(&r.Version, "version", 0, "the version `N`; default the newest")
	f.StringArrayVar(&vars, "var", nil, "a variable, `K=V`; repeat it")
	f.StringVar(&file, "vars-file", "", "variables from a JSON or YAML `FILE`")
	return a.shape(cmd, sdk.Rendered{})
}

func renderedText(r *sdk.Rendered) string {
	var b strings.Builder
	if r.Subject != "" {
		fmt.Fprintf(&b, "Subject: %s\n\n", clean(r.Subject))
	}
	for _, s := range []string{r.Text, r.HTML, string(r.Data)} {
		if s != "" {
			b.WriteString(strings.TrimRight(cleanLines(s), "\n") + "\n")
		}
	}
	if r.Approved != nil {
		params := strings.Join(r.Approved.Params, " · ")
		fmt.Fprintf(&b, "%s (%s)  %s\n", clean(r.Approved.Name), clean(r.Approved.Language), clean(params))
	}
	if r.Segments > 0 {
		fmt.Fprintf(&b, "(%s, %s)\n", count(r.Segments, "segment"), clean(r.Encoding))
	}
	return b.String()
}

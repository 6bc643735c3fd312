package check

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

const chartDir = "../../helm/msgctl"

// everything switches on what is off by default.
const everything = `
autoscaling: {enabled: true}
serviceMonitor: {enabled: true, labels: {release: prometheus}}
prometheusRule: {enabled: true}
dashboards: {enabled: true}
ingress: {enabled: true, className: nginx, tlsSecret: tls}
image: {tag: v1.2.3}
imagePullSecrets: [{name: pull}]
podAnnotations: {a: b}
podLabels: {c: d}
extraEnv: [{name: GOMEMLIMIT, value: 900MiB}]
nodeSelector: {disk: ssd}
tolerations: [{key: k, operator: Exists}]
priorityClassName: high
persistence: {storageClass: fast, annotations: {e: f}}
service: {annotations: {g: h}}
networkPolicy: {from: [{namespaceSelector: {matchLabels: {name: web}}}]}
`

const embedded = `
mode: embedded
replicaCount: 1
secrets: {masterKey: {name: "", key: master.key}}
`

// object is one rendered document, decoded into the type that its kind has. A field that the type lacks is an error.
type object struct {
	kind, name string
	value      any
	text       string
}

// kindOf gives an empty object of one of the kinds that the chart may make, nil for any other.
func kindOf(kind string) any {
	return map[string]any{
		"v1/ConfigMap": new(corev1.ConfigMap), "v1/Service": new(corev1.Service), "v1/ServiceAccount": new(corev1.ServiceAccount),
		"v1/Pod": new(corev1.Pod), "apps/v1/StatefulSet": new(appsv1.StatefulSet), "batch/v1/Job": new(batchv1.Job),
		"policy/v1/PodDisruptionBudget":           new(policyv1.PodDisruptionBudget),
		"autoscaling/v2/HorizontalPodAutoscaler":  new(autoscalingv2.HorizontalPodAutoscaler),
		"networking.k8s.io/v1/NetworkPolicy":      new(networkingv1.NetworkPolicy),
		"networking.k8s.io/v1/Ingress":            new(networkingv1.Ingress),
		"monitoring.coreos.com/v1/ServiceMonitor": new(serviceMonitor),
		"monitoring.coreos.com/v1/PrometheusRule": new(prometheusRule),
	}[kind]
}

func load(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.Load(chartDir)
	require.NoError(t, err)
	return c
}

// render is "helm template" with values in YAML.
func render(c *chart.Chart, values string) (map[string]string, error) {
	vals, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		return nil, err
	}
	release := chartutil.ReleaseOptions{Name: "prod", Namespace: "messages", IsInstall: true, Revision: 1}
	all, err := chartutil.ToRenderValues(c, vals, release, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	return engine.Engine{Strict: true}.Render(c, all)
}

// objects renders and decodes.
func objects(t *testing.T, values string) []object {
	t.Helper()
	files, err := render(load(t), values)
	require.NoError(t, err)
	var list []object
	for path, text := range files {
		if !strings.HasSuffix(path, ".yaml") {
			continue
		}
		for _, doc := range strings.Split(text, "\n---") {
			if strings.TrimSpace(stripComments(doc)) == "" {
				continue
			}
			var head struct {
				APIVersion string `json:"apiVersion"`
				Kind       string `json:"kind"`
				Metadata   struct {
					Name string `json:"name"`
				} `json:"metadata"`
			}
			require.NoError(t, yaml.Unmarshal([]byte(doc), &head), "%s:\n%s", path, doc)
			value := kindOf(head.APIVersion + "/" + head.Kind)
			require.NotNil(t, value, "%s makes a %s/%s", path, head.APIVersion, head.Kind)
			require.NoError(t, yaml.UnmarshalStrict([]byte(doc), value), "%s:\n%s", path, doc)
			require.NotEmpty(t, head.Metadata.Name, path)
			require.LessOrEqual(t, len(head.Metadata.Name), 63)
			list = append(list, object{head.Kind, head.Metadata.Name, value, doc})
		}
	}
	require.NotEmpty(t, list)
	return list
}

func stripComments(doc string) string {
	var b strings.Builder
	for line := range strings.Lines(doc) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// one returns the only object of a type.
func one[T any](t *testing.T, list []object) *T {
	t.Helper()
	var found *T
	for _, o := range list {
		if v, ok := o.value.(*T); ok {
			require.Nil(t, found, "more than one %s", o.kind)
			found = v
		}
	}
	require.NotNil(t, found)
	return found
}

func none(t *testing.T, list []object, kinds ...string) {
	t.Helper()
	for _, o := range list {
		require.NotContains(t, kinds, o.kind)
	}
}

func TestChartIsLinted(t *testing.T) {
	for _, values := range []string{"", everything, embedded} {
		vals, err := chartutil.ReadValues([]byte(values))
		require.NoError(t, err)
		l := lint.AllWithKubeVersion(chartDir, vals, "messages", nil)
		for _, m := range l.Messages {
			if m.Severity > support.InfoSev {
				t.Errorf("%s", m)
			}
		}
	}
}

// TestChartDecodes renders every document in every mode and decodes it strictly.
func TestChartDecodes(t *testing.T) {
	want := map[string][]string{
		"": {"ConfigMap", "Job", "NetworkPolicy", "Pod", "PodDisruptionBudget", "Service", "ServiceAccount", "StatefulSet"},
		everything: {"ConfigMap", "HorizontalPodAutoscaler", "Ingress", "Job", "NetworkPolicy", "Pod", "PodDisruptionBudget",
			"PrometheusRule", "Service", "ServiceAccount", "ServiceMonitor", "StatefulSet"},
		embedded: {"ConfigMap", "NetworkPolicy", "Pod", "Service", "ServiceAccount", "StatefulSet"},
	}
	for values, kinds := range want {
		seen := map[string]bool{}
		names := map[string]bool{}
		for _, o := range objects(t, values) {
			seen[o.kind] = true
			require.False(t, names[o.kind+o.name], "two of %s %s", o.kind, o.name)
			names[o.kind+o.name] = true
			require.NotContains(t, o.text, "postgres://", "a secret is in %s", o.name)
		}
		require.ElementsMatch(t, kinds, keys(seen), values)
	}
}

func keys(m map[string]bool) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}

// TestStrictDecodingIsStrict plants a field that Kubernetes does not know.
func TestStrictDecodingIsStrict(t *testing.T) {
	require.Error(t, yaml.UnmarshalStrict([]byte("spec: {replica: 3}"), new(appsv1.StatefulSet)))
	require.Error(t, yaml.UnmarshalStrict([]byte("spec: {endpoints: [{prot: http}]}"), new(serviceMonitor)))
}

// pods are all pods that the chart makes, with their names.
func pods(t *testing.T, list []object) map[string]corev1.PodSpec {
	found := map[string]corev1.PodSpec{}
	for _, o := range list {
		switch v := o.value.(type) {
		case *appsv1.StatefulSet:
			found["nodes"] = v.Spec.Template.Spec
		case *batchv1.Job:
			found["migrate"] = v.Spec.Template.Spec
		case *corev1.Pod:
			found["test"] = v.Spec
		}
	}
	return found
}

func TestNoPodMayDoMoreThanItMust(t *testing.T) {
	for _, values := range []string{"", everything, embedded} {
		for name, p := range pods(t, objects(t, values)) {
			require.False(t, *p.AutomountServiceAccountToken, name)
			s := p.SecurityContext
			require.True(t, *s.RunAsNonRoot, name)
			require.EqualValues(t, 65532, *s.RunAsUser, "the image's user, %s", name)
			require.EqualValues(t, 65532, *s.FSGroup, name)
			require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, s.SeccompProfile.Type, name)
			require.False(t, p.HostNetwork || p.HostPID || p.HostIPC, name)
			for _, c := range p.Containers {
				require.False(t, *c.SecurityContext.AllowPrivilegeEscalation, name)
				require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem, name)
				require.Equal(t, []corev1.Capability{"ALL"}, c.SecurityContext.Capabilities.Drop, name)
				require.Empty(t, c.SecurityContext.Capabilities.Add, name)
				require.False(t, c.Resources.Limits.Memory().IsZero(), "%s has no limit of memory", name)
				require.False(t, c.Resources.Requests.Cpu().IsZero(), "%s asks for no processor", name)
				mounts := map[string]bool{}
				for _, v := range p.Volumes {
					mounts[v.Name] = true
					require.Nil(t, v.HostPath, name)
				}
				for _, m := range c.VolumeMounts {
					require.True(t, mounts[m.Name] || m.Name == "data", "%s mounts %s, which is no volume", name, m.Name)
				}
			}
		}
	}
}

func TestNodesAreSetUp(t *testing.T) {
	list := objects(t, "")
	set := one[appsv1.StatefulSet](t, list)
	require.EqualValues(t, 3, *set.Spec.Replicas)
	require.Equal(t, appsv1.ParallelPodManagement, set.Spec.PodManagementPolicy)
	p := set.Spec.Template.Spec
	c := p.Containers[0]
	require.Equal(t, "/readyz", c.ReadinessProbe.HTTPGet.Path)
	require.Equal(t, "/healthz", c.LivenessProbe.HTTPGet.Path)
	require.Equal(t, "/healthz", c.StartupProbe.HTTPGet.Path)
	require.EqualValues(t, 60, *p.TerminationGracePeriodSeconds)
	require.EqualValues(t, 5, c.Lifecycle.PreStop.Sleep.Seconds)
	terms := p.Affinity.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution
	require.Len(t, terms, 2)
	require.Equal(t, set.Spec.Selector.MatchLabels, terms[0].PodAffinityTerm.LabelSelector.MatchLabels)
	require.Equal(t, "data", set.Spec.VolumeClaimTemplates[0].Name)
	// The labels choose the pods, and the migration is not among them.
	require.Subset(t, set.Spec.Template.Labels, set.Spec.Selector.MatchLabels)
	require.NotSubset(t, one[batchv1.Job](t, list).Spec.Template.Labels, set.Spec.Selector.MatchLabels)
	require.NotSubset(t, one[corev1.Pod](t, list).Labels, set.Spec.Selector.MatchLabels)
	for _, o := range list {
		if s, ok := o.value.(*corev1.Service); ok {
			require.Equal(t, set.Spec.Selector.MatchLabels, s.Spec.Selector, o.name)
			require.Equal(t, "http", s.Spec.Ports[0].TargetPort.String(), o.name)
		}
	}
	require.Equal(t, set.Spec.Selector.MatchLabels, one[policyv1.PodDisruptionBudget](t, list).Spec.Selector.MatchLabels)
	require.Equal(t, set.Spec.Selector.MatchLabels, one[networkingv1.NetworkPolicy](t, list).Spec.PodSelector.MatchLabels)

	// Secrets come by reference, and each comes from where the values say.
	from := map[string]string{}
	plain := map[string]string{}
	for _, e := range c.Env {
		if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
			from[e.Name] = e.ValueFrom.SecretKeyRef.Name + "/" + e.ValueFrom.SecretKeyRef.Key
		} else if e.ValueFrom == nil {
			plain[e.Name] = e.Value
		}
	}
	require.Equal(t, map[string]string{"MSGCTL_STORE": "msgctl/store-url", "MSGCTL_BROKER": "msgctl/broker-url",
		"MSGCTL_LIMITS": "msgctl/limits-url"}, from)
	require.Equal(t, map[string]string{"MSGCTL_CONFIG": "/etc/msgctl/engine.yaml", "MSGCTL_DIR": "/var/lib/msgctl",
		"MSGCTL_LISTEN": "0.0.0.0:8020", "MSGCTL_MASTER_KEY_FILE": "/etc/msgctl/secrets/master.key"}, plain)
}

func TestMigrationRunsFirst(t *testing.T) {
	job := one[batchv1.Job](t, objects(t, "migrate: {appRole: engine_app}"))
	require.Equal(t, "pre-install,pre-upgrade", job.Annotations["helm.sh/hook"])
	c := job.Spec.Template.Spec.Containers[0]
	require.Equal(t, []string{"/msgctl"}, c.Command)
	require.Equal(t, []string{"migrate", "up", "--app-role", "engine_app"}, c.Args)
	require.Equal(t, "msgctl-owner", c.Env[0].ValueFrom.SecretKeyRef.Name)
	require.Equal(t, corev1.RestartPolicyNever, job.Spec.Template.Spec.RestartPolicy)
	// A hook runs before the objects of the release exist: it may name none of them.
	require.Empty(t, job.Spec.Template.Spec.ServiceAccountName)
	require.Empty(t, job.Spec.Template.Spec.Volumes)
	none(t, objects(t, "migrate: {enabled: false}"), "Job")
}

func TestScaling(t *testing.T) {
	list := objects(t, everything)
	require.Nil(t, one[appsv1.StatefulSet](t, list).Spec.Replicas, "the autoscaler decides")
	h := one[autoscalingv2.HorizontalPodAutoscaler](t, list)
	require.Equal(t, one[appsv1.StatefulSet](t, list).Name, h.Spec.ScaleTargetRef.Name)
	require.Equal(t, "StatefulSet", h.Spec.ScaleTargetRef.Kind)
	m := h.Spec.Metrics[0].Pods
	require.Equal(t, "msgctl_queue_age_seconds", m.Metric.Name)
	require.Equal(t, map[string]string{"lane": "normal"}, m.Metric.Selector.MatchLabels)
	require.EqualValues(t, 15, m.Target.AverageValue.Value())
	require.Len(t, h.Spec.Metrics, 2)
	require.Len(t, one[autoscalingv2.HorizontalPodAutoscaler](t,
		objects(t, "autoscaling: {enabled: true, cpuPercent: 0}")).Spec.Metrics, 1)
}

func TestMonitoring(t *testing.T) {
	list := objects(t, everything)
	m := one[serviceMonitor](t, list)
	require.Equal(t, "prometheus", m.Metadata.Labels["release"])
	chosen := 0
	for _, o := range list {
		if s, ok := o.value.(*corev1.Service); ok && subset(s.Labels, m.Spec.Selector.MatchLabels) {
			require.Equal(t, m.Spec.Endpoints[0].Port, s.Spec.Ports[0].Name)
			chosen++
		}
	}
	require.Equal(t, 1, chosen, "each pod must be asked once")

	rules := one[prometheusRule](t, list)
	source, err := os.ReadFile("../../prometheus/alerts.yaml")
	require.NoError(t, err)
	var want prometheusRule
	require.NoError(t, yaml.UnmarshalStrict(source, &want.Spec))
	require.Equal(t, want.Spec, rules.Spec)

	boards, err := filepath.Glob("../../grafana/*.json")
	require.NoError(t, err)
	found := 0
	for _, o := range list {
		if c, ok := o.value.(*corev1.ConfigMap); ok && c.Labels["grafana_dashboard"] == "1" {
			for name, text := range c.Data {
				b, err := os.ReadFile("../../grafana/" + strings.TrimPrefix(name, "msgctl-"))
				require.NoError(t, err)
				require.Equal(t, string(bytes.TrimSpace(b)), strings.TrimSpace(text))
				found++
			}
		}
	}
	require.Equal(t, len(boards), found)
}

func subset(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

func TestEmbeddedNeedsNothing(t *testing.T) {
	list := objects(t, embedded)
	none(t, list, "Job", "PodDisruptionBudget", "HorizontalPodAutoscaler")
	p := one[appsv1.StatefulSet](t, list).Spec.Template.Spec
	for _, e := range p.Containers[0].Env {
		require.Nil(t, e.ValueFrom, e.Name)
		require.NotContains(t, []string{"MSGCTL_STORE", "MSGCTL_BROKER", "MSGCTL_LIMITS", "MSGCTL_NODE", "MSGCTL_MASTER_KEY_FILE"}, e.Name)
	}
	for _, v := range p.Volumes {
		require.Nil(t, v.Secret)
	}
}

// TestValuesAreChecked gives values that cannot work. Each is refused with a text that says what to do.
func TestValuesAreChecked(t *testing.T) {
	for _, c := range []struct{ values, says string }{
		{"replicas: 3", "replicas"},
		{"replicaCount: 0", "replicaCount"},
		{"replicaCount: many", "replicaCount"},
		{"mode: both", "mode"},
		{"image: {repository: ''}", "repository"},
		{"image: {digest: sha256:12}", "digest"},
		{"secrets: {store: {name: msgctl}, broker: 1}", "broker"},
		{"secrets: {store: {name: 'Not A Name', key: k}}", "store"},
		{"secrets: {store: {name: '', key: k}}", "store"},
		{"config: {log: {level: loud}}", "level"},
		{"config: {drain_timeout: 30}", "drain_timeout"},
		{"config: {store: 'postgres://u:p@h/d'}", "secrets.store"},
		{"config: {drain_timeout: 55s}", "terminationGracePeriodSeconds"},
		{"config: {drain_timeout: 1m}", "terminationGracePeriodSeconds"},
		{"terminationGracePeriodSeconds: 35", "terminationGracePeriodSeconds"},
		{"config: {roles: [sends]}", "roles"},
		{"migrate: {appRole: 'a; drop'}", "appRole"},
		{"autoscaling: {lane: fast}", "lane"},
		{"mode: embedded", "replicaCount to 1"},
		{"mode: embedded\nreplicaCount: 1\nautoscaling: {enabled: true}", "cannot be scaled"},
		{"persistence: {accessModes: [ReadWriteMany]}", "accessModes"},
		{"networkPolicy: {to: []}", "networkPolicy"},
	} {
		_, err := render(load(t), c.values)
		require.ErrorContains(t, err, c.says, c.values)
	}
	for _, values := range []string{
		"config: {drain_timeout: 1m30s}\nterminationGracePeriodSeconds: 100", "config: {drain_timeout: 500ms}",
		"podDisruptionBudget: {maxUnavailable: 30%}", "image: {digest: sha256:" + strings.Repeat("a", 64) + "}",
	} {
		_, err := render(load(t), values)
		require.NoError(t, err, values)
	}
}

// TestSchemaKnowsEveryValue keeps values.yaml and its schema in step.
func TestSchemaKnowsEveryValue(t *testing.T) {
	c := load(t)
	require.NotEmpty(t, c.Schema)
	f, err := os.Open(filepath.Join(chartDir, "values.schema.json"))
	require.NoError(t, err)
	defer f.Close()
	raw, err := io.ReadAll(f)
	require.NoError(t, err)
	var schema struct {
		Properties map[string]any `json:"properties"`
	}
	require.NoError(t, yaml.Unmarshal(raw, &schema))
	delete(schema.Properties, "global") // Helm's own
	for name := range schema.Properties {
		require.Contains(t, c.Values, name, "the schema knows a value that values.yaml does not show")
	}
	require.Equal(t, len(schema.Properties), len(c.Values), fmt.Sprint(c.Values))
}

// TestLongNames keeps every name within what Kubernetes allows.
func TestLongNames(t *testing.T) {
	for _, o := range objects(t, everything+"\nfullnameOverride: "+strings.Repeat("long-", 20)) {
		limit := 63
		if o.kind == "StatefulSet" {
			limit = 52 // its pods' revision label adds eleven
		}
		require.LessOrEqual(t, len(o.name), limit, "%s %s", o.kind, o.name)
		require.False(t, strings.HasSuffix(o.name, "-"))
	}
}

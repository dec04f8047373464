{{/* The files that the two programs read, and what must hold between values. */}}

{{/* The service's settings file: what the user gave, and what is the chart's business. */}}
{{- define "maddpg.settings" -}}
{{- /* A sidecar's verbs are for its own pod; health and metrics are asked for at the pod's addresses, of either family. */ -}}
{{- $all := "0.0.0.0,::" -}}
{{- $own := dict
    "host" (ternary "127.0.0.1,::1" $all (eq .Values.extender.mode "sidecar"))
    "operations_host" $all
    "port" (int .Values.extender.port)
    "operations_port" (int .Values.extender.operationsPort)
    "scheduler_name" .Values.scheduler.name
-}}
{{- with include "maddpg.peersName" . -}}
{{- $_ := set $own "peers" . -}}
{{- end -}}
{{- if or .Values.extender.bundle.configMap .Values.extender.bundle.persistentVolumeClaim -}}
{{- $_ := set $own "bundle_path" (trimSuffix "/" (printf "/etc/maddpg/bundle/%s" .Values.extender.bundle.subPath)) -}}
{{- /* the whole volume is mounted: a subPath of the mount would go on showing the old folder once another took its place */ -}}
{{- end -}}
{{- $candidate := .Values.extender.candidate -}}
{{- if or $candidate.configMap $candidate.persistentVolumeClaim -}}
{{- $_ := set $own $candidate.use (trimSuffix "/" (printf "/etc/maddpg/candidate/%s" $candidate.subPath)) -}}
{{- end -}}
{{- $prometheus := .Values.extender.prometheus -}}
{{- if $prometheus.url -}}
{{- $_ := set $own "usage_source" "prometheus" -}}
{{- $_ := set $own "prometheus_url" $prometheus.url -}}
{{- end -}}
{{- if or $prometheus.ca.configMap $prometheus.ca.secret -}}
{{- $_ := set $own "prometheus_ca_file" "/etc/maddpg/prometheus-ca/ca.crt" -}}
{{- end -}}
{{- if $prometheus.token.secret -}}
{{- $_ := set $own "prometheus_token_file" "/etc/maddpg/prometheus-token/token" -}}
{{- end -}}
{{- with $prometheus.basicAuth.username -}}
{{- $_ := set $own "prometheus_username" . -}}
{{- $_ := set $own "prometheus_password_file" "/etc/maddpg/prometheus-password/password" -}}
{{- end -}}
{{- if $prometheus.headers.secret -}}
{{- $_ := set $own "prometheus_headers_file" "/etc/maddpg/prometheus-headers/headers" -}}
{{- end -}}
{{- $kubelet := .Values.extender.kubelet -}}
{{- if $kubelet.enabled -}}
{{- $_ := set $own "usage_source" "kubelet" -}}
{{- end -}}
{{- if $kubelet.insecureSkipTLSVerify -}}
{{- $_ := set $own "kubelet_insecure_skip_tls_verify" true -}}
{{- end -}}
{{- if or $kubelet.ca.configMap $kubelet.ca.secret -}}
{{- $_ := set $own "kubelet_ca_file" "/etc/maddpg/kubelet-ca/ca.crt" -}}
{{- end -}}
{{- if .Values.benchmark.enabled -}}
{{- $_ := set $own "node_speed_benchmark" (printf "%s/%s" .Release.Namespace (include "maddpg.benchmarkName" .)) -}}
{{- end -}}
{{- if eq (include "maddpg.tls" .) "true" -}}
{{- $_ := set $own "tls_cert_file" "/etc/maddpg/tls/tls.crt" -}}
{{- $_ := set $own "tls_key_file" "/etc/maddpg/tls/tls.key" -}}
{{- $_ := set $own "tls_client_ca_file" "/etc/maddpg/tls/ca.crt" -}}
{{- $names := eq .Values.tls.mode "existing" | ternary .Values.tls.existing.clientNames (list (include "maddpg.clientName" .)) -}}
{{- with $names -}}
{{- $_ := set $own "tls_client_names" . -}}
{{- end -}}
{{- end -}}
{{- if .Values.tls.operations -}}
{{- $_ := set $own "operations_tls" true -}}
{{- end -}}
{{- if .Values.tls.operationsClients.required -}}
{{- $_ := set $own "operations_client_ca_file" "/etc/maddpg/tls/ca.crt" -}}
{{- $names := .Values.tls.operationsClients.names -}}
{{- if ne .Values.tls.mode "existing" -}}
{{- $names = prepend $names (include "maddpg.readerName" .) -}}
{{- end -}}
{{- with $names -}}
{{- $_ := set $own "operations_client_names" . -}}
{{- end -}}
{{- end -}}
{{- $settings := merge $own (default dict .Values.extender.settings) -}}
{{- if not (hasKey $settings "kubernetes_version") -}}
{{- with include "maddpg.minorVersion" . -}}
{{- $_ := set $settings "kubernetes_version" . -}}
{{- end -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}

{{/* The extender as kube-scheduler's configuration names it. A verb that the settings switch off is not called. */}}
{{- define "maddpg.extenderConfiguration" -}}
{{- $settings := default dict .Values.extender.settings -}}
urlPrefix: {{ include "maddpg.extenderURL" . | quote }}
{{- if .Values.scheduler.extender.filter }}
filterVerb: filter
{{- end }}
{{- if ne (toString (get $settings "enable_prioritize")) "false" }}
prioritizeVerb: prioritize
{{- end }}
{{- if ne (toString (get $settings "enable_preempt")) "false" }}
preemptVerb: preempt
{{- end }}
{{- if eq (toString (get $settings "enable_bind")) "true" }}
bindVerb: bind
{{- end }}
{{- if eq (include "maddpg.tls" .) "true" }}
enableHTTPS: true
tlsConfig:
  # also where the URL holds an address
  serverName: {{ include "maddpg.extenderHost" . }}
  # without it kube-scheduler accepts any certificate, silently
  caFile: /etc/kube-scheduler-tls/ca.crt
  certFile: /etc/kube-scheduler-tls/tls.crt
  keyFile: /etc/kube-scheduler-tls/tls.key
{{- end }}
weight: {{ int64 .Values.scheduler.extender.weight }}
nodeCacheCapable: true
httpTimeout: {{ .Values.scheduler.extender.httpTimeout }}
ignorable: {{ .Values.scheduler.extender.ignorable }}
{{- end -}}

{{- define "maddpg.schedulerConfiguration" -}}
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection:
  qps: {{ int64 .Values.scheduler.client.qps }}
  burst: {{ int64 .Values.scheduler.client.burst }}
leaderElection:
  leaderElect: true
  leaseDuration: {{ .Values.scheduler.leaderElection.leaseDuration }}
  renewDeadline: {{ .Values.scheduler.leaderElection.renewDeadline }}
  retryPeriod: {{ .Values.scheduler.leaderElection.retryPeriod }}
  resourceNamespace: {{ .Release.Namespace | quote }}
  resourceName: {{ include "maddpg.fullname" . | quote }}
{{- with .Values.scheduler.percentageOfNodesToScore }}
percentageOfNodesToScore: {{ . }}
{{- end }}
profiles:
  - schedulerName: {{ .Values.scheduler.name | quote }}
    {{- with .Values.scheduler.disabledScores }}
    plugins:
      score:
        disabled:
          {{- range . }}
          - name: {{ . | quote }}
          {{- end }}
    {{- end }}
extenders:
  - {{ include "maddpg.extenderConfiguration" . | indent 4 | trim }}
{{- end -}}

{{/* "1s" or "250ms" -> milliseconds */}}
{{- define "maddpg.milliseconds" -}}
{{- if hasSuffix "ms" . -}}{{ trimSuffix "ms" . }}{{- else -}}{{ mul 1000 (trimSuffix "s" . | int) }}{{- end -}}
{{- end -}}

{{/* Values that disagree with each other; a schema sees only one at a time. */}}
{{- define "maddpg.validate" -}}
{{- $extender := .Values.extender -}}
{{- $settings := default dict $extender.settings -}}
{{- $scheduler := .Values.scheduler -}}
{{- if eq (toString .Values.enabled) "false" -}}
{{- fail "enabled: is the condition of a parent chart, and this one has no such condition: add `condition: maddpg-scheduler.enabled` to its dependency, or leave the chart out" -}}
{{- end -}}
{{- $name := include "maddpg.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "fullnameOverride: set it to a name of small letters, digits and dashes that begins with a letter: %q cannot be the name of a Service" $name) -}}
{{- end -}}
{{- $labels := dict "commonLabels" .Values.commonLabels "pods.labels" .Values.pods.labels -}}
{{- range $kind := list "serviceMonitor" "prometheusRule" "dashboard" -}}
{{- $_ := set $labels (printf "monitoring.%s.labels" $kind) (get $.Values.monitoring $kind).labels -}}
{{- end -}}
{{- range $at, $map := $labels -}}
{{- range $key := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" -}}
{{- if hasKey (default dict $map) $key -}}
{{- fail (printf "%s: %s is the label by which the chart selects its pods; leave it out" $at $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $key := list "checksum/settings" "checksum/scheduler" -}}
{{- if hasKey (default dict $.Values.pods.annotations) $key -}}
{{- fail (printf "pods.annotations: %s is the annotation by which the chart replaces pods; leave it out" $key) -}}
{{- end -}}
{{- end -}}
{{- include "maddpg.validateVolumes" . -}}
{{- $seen := list -}}
{{- range $variable := $extender.extraEnv -}}
{{- if has $variable.name $seen -}}
{{- fail (printf "extender.extraEnv: %s stands twice, which the API server refuses; give each variable once" $variable.name) -}}
{{- end -}}
{{- if has $variable.name (list "MADDPG_HOST" "MADDPG_PORT" "MADDPG_OPERATIONS_HOST" "MADDPG_OPERATIONS_PORT") -}}
{{- fail (printf "extender.extraEnv: %s would change where the extender listens, and nobody would find it; use extender.port and extender.operationsPort" $variable.name) -}}
{{- end -}}
{{- $seen = append $seen $variable.name -}}
{{- end -}}
{{- $seen = list -}}
{{- range $secret := .Values.imagePullSecrets -}}
{{- if has $secret.name $seen -}}
{{- fail (printf "imagePullSecrets: %s stands twice, which the API server refuses; give each Secret once" $secret.name) -}}
{{- end -}}
{{- $seen = append $seen $secret.name -}}
{{- end -}}
{{- if and $scheduler.extender.filter (eq (toString $settings.enable_filter) "false") -}}
{{- fail "scheduler.extender.filter: kube-scheduler would call what extender.settings.enable_filter switches off; leave one of them out" -}}
{{- end -}}
{{- if and (eq $extender.mode "sidecar") (has 10259 (list (int $extender.port) (int $extender.operationsPort))) -}}
{{- fail "extender.port: 10259 is kube-scheduler's own port in that pod; choose another, and for extender.operationsPort" -}}
{{- end -}}
{{- if and (eq $extender.mode "sidecar") (not $scheduler.enabled) -}}
{{- fail "extender.mode: sidecar needs scheduler.enabled: true, since it lives in that pod; set extender.mode: service" -}}
{{- end -}}
{{- if and $extender.autoscaling.enabled (eq $extender.mode "sidecar") -}}
{{- fail "extender.autoscaling.enabled: needs extender.mode: service; in mode sidecar set scheduler.replicas" -}}
{{- end -}}
{{- if gt (int $extender.autoscaling.minReplicas) (int $extender.autoscaling.maxReplicas) -}}
{{- fail "extender.autoscaling.minReplicas: must not be above extender.autoscaling.maxReplicas" -}}
{{- end -}}
{{- if eq (int $extender.port) (int $extender.operationsPort) -}}
{{- fail "extender.operationsPort: must differ from extender.port, or whoever reads metrics could call the verbs" -}}
{{- end -}}
{{- if and $extender.bundle.configMap $extender.bundle.persistentVolumeClaim -}}
{{- fail "extender.bundle.configMap: set it or extender.bundle.persistentVolumeClaim, not both" -}}
{{- end -}}
{{- if and $extender.bundle.subPath (not $extender.bundle.persistentVolumeClaim) -}}
{{- fail "extender.bundle.subPath: is a folder of extender.bundle.persistentVolumeClaim, which is empty" -}}
{{- end -}}
{{- $candidate := $extender.candidate -}}
{{- if and $candidate.configMap $candidate.persistentVolumeClaim -}}
{{- fail "extender.candidate.configMap: set it or extender.candidate.persistentVolumeClaim, not both" -}}
{{- end -}}
{{- if and $candidate.subPath (not $candidate.persistentVolumeClaim) -}}
{{- fail "extender.candidate.subPath: is a folder of extender.candidate.persistentVolumeClaim, which is empty" -}}
{{- end -}}
{{- if and (or $candidate.configMap $candidate.persistentVolumeClaim) (get $settings $candidate.use) -}}
{{- fail (printf "extender.candidate.use: is %s, which extender.settings.%s names too; leave one of them out" $candidate.use $candidate.use) -}}
{{- end -}}
{{- $prometheus := $extender.prometheus -}}
{{- if and $prometheus.ca.configMap $prometheus.ca.secret -}}
{{- fail "extender.prometheus.ca.configMap: set it or extender.prometheus.ca.secret, not both" -}}
{{- end -}}
{{- $basic := $prometheus.basicAuth -}}
{{- if and (not $prometheus.url) (or $prometheus.ca.configMap $prometheus.ca.secret $prometheus.token.secret $basic.username $basic.secret $prometheus.headers.secret) -}}
{{- fail "extender.prometheus.url: is empty, so nobody needs the other values of extender.prometheus" -}}
{{- end -}}
{{- if ne (empty $basic.username) (empty $basic.secret) -}}
{{- fail "extender.prometheus.basicAuth.username: belongs to extender.prometheus.basicAuth.secret; set both, or neither" -}}
{{- end -}}
{{- if and $basic.username $prometheus.token.secret -}}
{{- fail "extender.prometheus.basicAuth.username: set it or extender.prometheus.token.secret, not both" -}}
{{- end -}}
{{- if $prometheus.url -}}
{{- range $name := list "usage_source" "prometheus_url" "prometheus_ca_file" "prometheus_token_file" "prometheus_username" "prometheus_password_file" "prometheus_headers_file" -}}
{{- if hasKey $settings $name -}}
{{- fail (printf "extender.prometheus.url: is set, so leave extender.settings.%s out, and use extender.prometheus" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $kubelet := $extender.kubelet -}}
{{- $kubeletCA := or $kubelet.ca.configMap $kubelet.ca.secret -}}
{{- if and $kubelet.enabled $prometheus.url -}}
{{- fail "extender.kubelet.enabled: use comes from one source, and extender.prometheus.url is set; leave one of them out" -}}
{{- end -}}
{{- if and $kubelet.ca.configMap $kubelet.ca.secret -}}
{{- fail "extender.kubelet.ca.configMap: set it or extender.kubelet.ca.secret, not both" -}}
{{- end -}}
{{- if and $kubelet.insecureSkipTLSVerify $kubeletCA -}}
{{- fail "extender.kubelet.insecureSkipTLSVerify: is true, so no authority counts; leave extender.kubelet.ca out" -}}
{{- end -}}
{{- $trust := or $kubelet.insecureSkipTLSVerify $kubeletCA -}}
{{- $source := ternary "prometheus" (default "auto" $settings.usage_source) (not (empty $prometheus.url)) -}}
{{- if and $trust (not $kubelet.enabled) (not (has $source (list "auto" "kubelet"))) -}}
{{- fail (printf "extender.kubelet.ca: use comes from %s, so nobody needs it, nor extender.kubelet.insecureSkipTLSVerify" $source) -}}
{{- end -}}
{{- if and $kubelet.enabled (hasKey $settings "usage_source") -}}
{{- fail "extender.kubelet.enabled: is true, so leave extender.settings.usage_source out" -}}
{{- end -}}
{{- range $name := list "kubelet_ca_file" "kubelet_insecure_skip_tls_verify" -}}
{{- if and (or $trust $kubelet.enabled) (hasKey $settings $name) -}}
{{- fail (printf "extender.kubelet.ca: leave extender.settings.%s out, and use extender.kubelet" $name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.benchmark.enabled (hasKey $settings "node_speed_benchmark") -}}
{{- fail "benchmark.enabled: is true, so leave extender.settings.node_speed_benchmark out" -}}
{{- end -}}
{{- $tls := .Values.tls -}}
{{- if and $tls.operations (eq $tls.mode "none") -}}
{{- fail "tls.operations: needs a certificate; set tls.mode to selfSigned, certManager or existing" -}}
{{- end -}}
{{- if and (eq (include "maddpg.tls" .) "true") (eq $tls.mode "existing") (or (not $tls.existing.serverSecret) (not $tls.existing.clientSecret)) -}}
{{- fail "tls.existing.serverSecret: tls.mode is existing, so name it and tls.existing.clientSecret: Secrets with tls.crt, tls.key and ca.crt" -}}
{{- end -}}
{{- if and $tls.operationsClients.required (not $tls.operations) -}}
{{- fail "tls.operationsClients.required: needs tls.operations: true, since certificates are shown over TLS alone" -}}
{{- end -}}
{{- if and $tls.operationsClients.names (not $tls.operationsClients.required) -}}
{{- fail "tls.operationsClients.names: needs tls.operationsClients.required: true, or nobody looks at them" -}}
{{- end -}}
{{- if and (eq $tls.mode "existing") (ne $tls.operationsClients.required (not (empty $tls.existing.readerSecret))) -}}
{{- fail "tls.existing.readerSecret: belongs to tls.operationsClients.required; set both, or neither" -}}
{{- end -}}
{{- if and (eq (include "maddpg.tls" .) "true") (eq $tls.mode "certManager") (ge (trimSuffix "h" $tls.certManager.renewBefore | int) (trimSuffix "h" $tls.certManager.duration | int)) -}}
{{- fail "tls.certManager.renewBefore: must be less than tls.certManager.duration, or cert-manager refuses the certificates" -}}
{{- end -}}
{{- $lease := $scheduler.leaderElection -}}
{{- if le (trimSuffix "s" $lease.leaseDuration | int) (trimSuffix "s" $lease.renewDeadline | int) -}}
{{- fail "scheduler.leaderElection.renewDeadline: must be less than leaseDuration" -}}
{{- end -}}
{{- if le (trimSuffix "s" $lease.renewDeadline | float64) (mulf 1.2 (trimSuffix "s" $lease.retryPeriod | float64)) -}}
{{- fail "scheduler.leaderElection.retryPeriod: times 1.2 must be less than renewDeadline" -}}
{{- end -}}
{{- if and (eq (default "" $settings.usage_source) "prometheus") (not $settings.prometheus_url) -}}
{{- fail "extender.settings.prometheus_url: needed where usage_source is prometheus" -}}
{{- end -}}
{{- $deadline := float64 (default 50 $settings.deadline_ms) -}}
{{- if ge $deadline (include "maddpg.milliseconds" $scheduler.extender.httpTimeout | float64) -}}
{{- fail "extender.settings.deadline_ms: must be less than scheduler.extender.httpTimeout, or kube-scheduler gives up before the fallback answers" -}}
{{- end -}}
{{- end -}}

{{/* A name or path of extraVolumes that the chart uses itself: the API server would refuse the pod. */}}
{{- define "maddpg.validateVolumes" -}}
{{- $names := list "settings" "tmp" "server-tls" "bundle" "candidate" "prometheus-ca" "prometheus-token" "prometheus-password" "prometheus-headers" "kubelet-ca" "config" "client-tls" -}}
{{- range $volume := .Values.extender.extraVolumes -}}
{{- if has $volume.name $names -}}
{{- fail (printf "extender.extraVolumes: the name %s is the chart's own; choose another" $volume.name) -}}
{{- end -}}
{{- $names = append $names $volume.name -}}
{{- end -}}
{{- $paths := list "/tmp" "/etc/maddpg/settings.yaml" "/etc/maddpg/tls" "/etc/maddpg/bundle" "/etc/maddpg/candidate" "/etc/maddpg/prometheus-ca" "/etc/maddpg/prometheus-token" "/etc/maddpg/prometheus-password" "/etc/maddpg/prometheus-headers" "/etc/maddpg/kubelet-ca" -}}
{{- range $mount := .Values.extender.extraVolumeMounts -}}
{{- if has (clean $mount.mountPath) $paths -}}
{{- fail (printf "extender.extraVolumeMounts: something is mounted at %s already; choose another mountPath" $mount.mountPath) -}}
{{- end -}}
{{- $paths = append $paths (clean $mount.mountPath) -}}
{{- end -}}
{{- end -}}

{{/* What things are called, and how they find each other. */}}

{{- define "maddpg.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $whole := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if le (len $whole) 40 -}}
{{- $whole -}}
{{- else -}}
{{- /* cut off alone, two long names would be one */ -}}
{{- printf "%s-%s" (trunc 31 $whole | trimSuffix "-") (sha256sum $whole | trunc 8) -}}
{{- end -}}
{{- end -}}

{{- define "maddpg.extenderName" -}}
{{- include "maddpg.fullname" . }}-extender
{{- end -}}

{{/* The DaemonSet that measures nodes, and its ServiceAccount: the extender takes them to be of one name. */}}
{{- define "maddpg.benchmarkName" -}}
{{- include "maddpg.fullname" . }}-benchmark
{{- end -}}

{{/* (list $ "suffix") -> the name of an object of the whole cluster: equal releases of two namespaces must not clash.
     A name that is too long keeps its beginning, and a hash of the whole. */}}
{{- define "maddpg.clusterName" -}}
{{- $root := index . 0 -}}
{{- $whole := printf "%s:%s%s" $root.Release.Namespace (include "maddpg.fullname" $root) (index . 1) -}}
{{- if le (len $whole) 63 -}}
{{- $whole -}}
{{- else -}}
{{- printf "%s-%s" (trunc 54 $whole | trimSuffix "-") (sha256sum $whole | trunc 8) -}}
{{- end -}}
{{- end -}}

{{/* The ServiceAccount that the extender runs with: a sidecar has its pod's. */}}
{{- define "maddpg.extenderAccount" -}}
{{- if eq .Values.extender.mode "sidecar" -}}
{{- include "maddpg.schedulerAccount" . -}}
{{- else -}}
{{- include "maddpg.account" (list "extender" .Values.extender.serviceAccount (include "maddpg.extenderName" .)) -}}
{{- end -}}
{{- end -}}

{{- define "maddpg.schedulerAccount" -}}
{{- include "maddpg.account" (list "scheduler" .Values.scheduler.serviceAccount (include "maddpg.fullname" .)) -}}
{{- end -}}

{{/* (list "component" serviceAccount "name of the chart") -> its name. Never the one that every pod of the namespace has. */}}
{{- define "maddpg.account" -}}
{{- $account := index . 1 -}}
{{- $name := $account.name | default (ternary (index . 2) "" $account.create) -}}
{{- if not $name -}}
{{- fail (printf "%s.serviceAccount.name: name the ServiceAccount to use, since %s.serviceAccount.create is false" (index . 0) (index . 0)) -}}
{{- end -}}
{{- if eq $name "default" -}}
{{- fail (printf "%s.serviceAccount.name: is default, which every pod of the namespace has and which would get these rights; name another" (index . 0)) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* The component whose pods hold the extender. */}}
{{- define "maddpg.extenderComponent" -}}
{{- eq .Values.extender.mode "sidecar" | ternary "scheduler" "extender" -}}
{{- end -}}

{{/* (list $ "component") -> labels that select its pods; they never change between versions. */}}
{{- define "maddpg.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* (list $ "component" more...) -> labels of an object, each key once: maps further right win, and the selector's labels,
     which "maddpg.validate" keeps out of the values, over all. */}}
{{- define "maddpg.labels" -}}
{{- $root := index . 0 -}}
{{- $labels := dict
    "app.kubernetes.io/version" $root.Chart.AppVersion
    "app.kubernetes.io/managed-by" $root.Release.Service
    "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_")
-}}
{{- range $more := prepend (slice . 2) $root.Values.commonLabels -}}
{{- $labels = merge (dict) (default dict $more) $labels -}}
{{- end -}}
{{- toYaml (merge (include "maddpg.selector" . | fromYaml) $labels) -}}
{{- end -}}

{{/* (dict "image" values "tag" default) -> repository:tag or repository@digest. */}}
{{- define "maddpg.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .tag .image.tag }}
{{- end -}}
{{- end -}}

{{/* The kube-scheduler that fits the cluster: v1.37.2 of v1.37.2-eks-1a2b3c, v1.37.0 of v1.37, as Argo CD has it. */}}
{{- define "maddpg.clusterVersion" -}}
{{- $found := regexFind "^v?[0-9]+[.][0-9]+([.][0-9]+(-(alpha|beta|rc)[.][0-9]+)?)?" .Capabilities.KubeVersion.Version | trimPrefix "v" -}}
{{- if $found -}}
v{{ $found }}{{ if eq (len (splitList "." $found)) 2 }}.0{{ end }}
{{- end -}}
{{- end -}}

{{/* The version of kube-scheduler's image; empty where only a digest says it. */}}
{{- define "maddpg.schedulerVersion" -}}
{{- $image := .Values.scheduler.image -}}
{{- $version := $image.tag -}}
{{- if not (or $image.tag $image.digest) -}}
{{- $version = include "maddpg.clusterVersion" . -}}
{{- if not $version -}}
{{- fail (printf "scheduler.image.tag: give the version of kube-scheduler, such as v1.36.2: the cluster's own, %q, has none" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end -}}
{{- if and $version (not (regexMatch "^v[0-9]+[.][0-9]+[.][0-9]+" $version)) -}}
{{- fail (printf "scheduler.image.tag: is %q, which names no release; give one with its patch version, such as v1.36.2" $version) -}}
{{- end -}}
{{- $numbers := regexFind "^v?[0-9]+[.][0-9]+" $version | trimPrefix "v" | splitList "." -}}
{{- if eq (len $numbers) 2 -}}
{{- if or (lt (index $numbers 0 | int) 1) (and (eq (index $numbers 0) "1") (lt (index $numbers 1 | int) 34)) -}}
{{- fail (printf "scheduler.image.tag: kube-scheduler %s is older than v1.34, the oldest that is supported" $version) -}}
{{- end -}}
{{- end -}}
{{- $version -}}
{{- end -}}

{{/* The minor version, such as 1.36, whose kube-scheduler calls, among those that the extender knows: that of its image, else, as
     where only a digest names the image, that of the cluster; empty where nobody says. */}}
{{- define "maddpg.minorVersion" -}}
{{- $version := "" -}}
{{- if .Values.scheduler.enabled -}}
{{- $version = include "maddpg.schedulerVersion" . -}}
{{- end -}}
{{- with regexFind "[0-9]+[.][0-9]+" ($version | default (include "maddpg.clusterVersion" .)) -}}
{{- printf "1.%d" (min 37 (max 34 (splitList "." . | last | int))) -}}
{{- end -}}
{{- end -}}

{{/* Where a kube-scheduler finds the extender. Every pod has 127.0.0.1, one of an IPv6-only cluster too. */}}
{{- define "maddpg.extenderURL" -}}
{{ eq (include "maddpg.tls" .) "true" | ternary "https" "http" }}://{{ eq .Values.extender.mode "sidecar" | ternary "127.0.0.1" (include "maddpg.extenderHost" .) }}:{{ .Values.extender.port }}
{{- end -}}

{{/* Scheme of the operations port, as Prometheus spells it. */}}
{{- define "maddpg.operationsScheme" -}}
{{ .Values.tls.operations | ternary "https" "http" }}
{{- end -}}

{{- define "maddpg.extenderHost" -}}
{{ include "maddpg.extenderName" . }}.{{ .Release.Namespace }}.svc
{{- end -}}

{{/* The headless Service by which replicas find each other; empty where there is one alone. */}}
{{- define "maddpg.peersName" -}}
{{- $extender := .Values.extender -}}
{{- $replicas := ternary $extender.autoscaling.maxReplicas $extender.replicas $extender.autoscaling.enabled -}}
{{- if eq $extender.mode "sidecar" -}}
{{- $replicas = .Values.scheduler.replicas -}}
{{- end -}}
{{- if gt (int $replicas) 1 -}}
{{ include "maddpg.extenderName" . }}-peers
{{- end -}}
{{- end -}}

{{/* "true" where the extender has a certificate: the calls cross the network, or the operations port is to have one.
     The service has one identity, so a sidecar's verbs have it then too; on loopback alone nobody listens. */}}
{{- define "maddpg.tls" -}}
{{- or .Values.tls.operations (and (eq .Values.extender.mode "service") (ne .Values.tls.mode "none")) -}}
{{- end -}}

{{/* Secrets with tls.crt, tls.key and ca.crt: the extender's, and its callers'. */}}
{{- define "maddpg.serverSecret" -}}
{{- eq .Values.tls.mode "existing" | ternary .Values.tls.existing.serverSecret (printf "%s-tls" (include "maddpg.extenderName" .)) -}}
{{- end -}}

{{- define "maddpg.clientSecret" -}}
{{- eq .Values.tls.mode "existing" | ternary .Values.tls.existing.clientSecret (printf "%s-client-tls" (include "maddpg.fullname" .)) -}}
{{- end -}}

{{/* The Secret of those who read the operations port; empty where no certificate is demanded of them. */}}
{{- define "maddpg.readerSecret" -}}
{{- if .Values.tls.operationsClients.required -}}
{{- eq .Values.tls.mode "existing" | ternary .Values.tls.existing.readerSecret (printf "%s-reader-tls" (include "maddpg.fullname" .)) -}}
{{- end -}}
{{- end -}}

{{/* The common name in their certificate. */}}
{{- define "maddpg.readerName" -}}
{{ include "maddpg.fullname" . }}-reader
{{- end -}}

{{/* The common name in the callers' certificate, which the extender asks for. */}}
{{- define "maddpg.clientName" -}}
{{ include "maddpg.fullname" . }}-kube-scheduler
{{- end -}}

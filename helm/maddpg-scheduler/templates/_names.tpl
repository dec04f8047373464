{{/* What things are called, and how they find each other. */}}

{{- define "maddpg.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "maddpg.extenderName" -}}
{{- include "maddpg.fullname" . }}-extender
{{- end -}}

{{/* The ServiceAccount that the extender runs with: a sidecar has its pod's. */}}
{{- define "maddpg.extenderAccount" -}}
{{- if eq .Values.extender.mode "sidecar" -}}
{{- include "maddpg.schedulerAccount" . -}}
{{- else if .Values.extender.serviceAccount.create -}}
{{- default (include "maddpg.extenderName" .) .Values.extender.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.extender.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "maddpg.schedulerAccount" -}}
{{- if .Values.scheduler.serviceAccount.create -}}
{{- default (include "maddpg.fullname" .) .Values.scheduler.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.scheduler.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The component whose pods hold the extender. */}}
{{- define "maddpg.extenderComponent" -}}
{{- eq .Values.extender.mode "sidecar" | ternary "scheduler" "extender" -}}
{{- end -}}

{{/* (list $ "component") -> labels that select its pods; they never change between versions. */}}
{{- define "maddpg.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* (list $ "component") -> labels of an object. */}}
{{- define "maddpg.labels" -}}
{{- $root := index . 0 -}}
{{ include "maddpg.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* (dict "image" values "tag" default) -> repository:tag or repository@digest. */}}
{{- define "maddpg.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .tag .image.tag }}
{{- end -}}
{{- end -}}

{{/* The kube-scheduler that fits the cluster: v1.37.2 of v1.37.2-eks-1a2b3c. */}}
{{- define "maddpg.clusterVersion" -}}
{{- regexFind "^v[0-9]+\\.[0-9]+\\.[0-9]+" .Capabilities.KubeVersion.Version -}}
{{- end -}}

{{/* Where a kube-scheduler finds the extender. */}}
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

{{/* The common name in the callers' certificate, which the extender asks for. */}}
{{- define "maddpg.clientName" -}}
{{ include "maddpg.fullname" . }}-kube-scheduler
{{- end -}}

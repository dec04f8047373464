{{/* What the pods of both Deployments have in common, and the extender's container, which either may hold. */}}

{{/* (list $ "component") -> metadata of a pod */}}
{{- define "maddpg.podMetadata" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- /* a changed configuration replaces the pods */ -}}
{{- $sums := dict -}}
{{- if eq $component (include "maddpg.extenderComponent" $root) -}}
{{- $_ := set $sums "checksum/settings" (include "maddpg.settings" $root | sha256sum) -}}
{{- end -}}
{{- if eq $component "scheduler" -}}
{{- $_ := set $sums "checksum/scheduler" (include "maddpg.schedulerConfiguration" $root | sha256sum) -}}
{{- end -}}
annotations:
  {{- toYaml (merge $sums (default dict $root.Values.pods.annotations)) | nindent 2 }}
labels:
  {{- include "maddpg.labels" (list $root $component $root.Values.pods.labels) | nindent 2 }}
{{- end -}}

{{/* The pods' security context. OpenShift chooses users and groups itself, and refuses others. */}}
{{- define "maddpg.podSecurityContext" -}}
{{- $context := .Values.pods.securityContext -}}
{{- $apis := .Capabilities.APIVersions -}}
{{- if or ($apis.Has "security.openshift.io/v1") ($apis.Has "security.openshift.io/v1/SecurityContextConstraints") -}}
{{- $context = omit $context "runAsUser" "runAsGroup" "fsGroup" -}}
{{- end -}}
{{- with $context -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{/* (list $ "component") -> the part of a pod's spec that says where and how it runs */}}
{{- define "maddpg.podPlace" -}}
{{- $root := index . 0 -}}
{{- $pods := $root.Values.pods -}}
# never our own: an extender that waits for itself would not start
schedulerName: default-scheduler
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pods.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with include "maddpg.podSecurityContext" $root }}
securityContext:
  {{- . | nindent 2 }}
{{- end }}
{{- with $pods.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pods.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $pods.affinity }}
affinity:
  {{- toYaml $pods.affinity | nindent 2 }}
{{- else if eq $pods.antiAffinity "required" }}
affinity:
  podAntiAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "maddpg.selector" . | nindent 12 }}
{{- else if eq $pods.antiAffinity "preferred" }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "maddpg.selector" . | nindent 14 }}
{{- end }}
{{- with $pods.spreadOver }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: {{ . | quote }}
    whenUnsatisfiable: ScheduleAnyway
    # without it a rolling update counts the old pods as well
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "maddpg.selector" $ | nindent 8 }}
{{- end }}
{{- end -}}

{{- define "maddpg.extenderContainer" -}}
{{- $extender := .Values.extender -}}
name: extender
image: {{ include "maddpg.image" (dict "image" $extender.image "tag" .Chart.AppVersion) | quote }}
imagePullPolicy: {{ $extender.image.pullPolicy }}
args: [serve, --config, /etc/maddpg/settings.yaml]
{{- with $extender.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - name: verbs
    containerPort: {{ $extender.port }}
  - name: operations
    containerPort: {{ $extender.operationsPort }}
# The policy is loaded and the cluster listed before it is ready; alive is only that the process answers.
startupProbe:
  httpGet:
    path: /healthz
    port: operations
    scheme: {{ include "maddpg.operationsScheme" . | upper }}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet:
    path: /healthz
    port: operations
    scheme: {{ include "maddpg.operationsScheme" . | upper }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet:
    path: /readyz
    port: operations
    scheme: {{ include "maddpg.operationsScheme" . | upper }}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
lifecycle:
  preStop:
    # it still answers while Services and kube-scheduler move on; the kubelet does the sleeping: the image has no shell
    sleep:
      seconds: {{ int64 $extender.drainSeconds }}
{{- with $extender.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.pods.containerSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - name: settings
    mountPath: /etc/maddpg/settings.yaml
    subPath: settings.yaml
    readOnly: true
  - name: tmp
    mountPath: /tmp
  {{- if eq (include "maddpg.tls" .) "true" }}
  # the folder and not its files: only so does the kubelet exchange them when the Secret changes
  - name: server-tls
    mountPath: /etc/maddpg/tls
    readOnly: true
  {{- end }}
  {{- if or $extender.bundle.configMap $extender.bundle.persistentVolumeClaim }}
  - name: bundle
    mountPath: /etc/maddpg/bundle
    readOnly: true
  {{- end }}
  {{- if or $extender.candidate.configMap $extender.candidate.persistentVolumeClaim }}
  - name: candidate
    mountPath: /etc/maddpg/candidate
    readOnly: true
  {{- end }}
  {{- if or $extender.prometheus.ca.configMap $extender.prometheus.ca.secret }}
  - name: prometheus-ca
    mountPath: /etc/maddpg/prometheus-ca
    readOnly: true
  {{- end }}
  {{- range $name, $_ := include "maddpg.prometheusSecrets" . | fromYaml }}
  - name: prometheus-{{ $name }}
    mountPath: /etc/maddpg/prometheus-{{ $name }}
    readOnly: true
  {{- end }}
  {{- if or $extender.kubelet.ca.configMap $extender.kubelet.ca.secret }}
  - name: kubelet-ca
    mountPath: /etc/maddpg/kubelet-ca
    readOnly: true
  {{- end }}
  {{- with $extender.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* What Prometheus asks for: name of the file -> Secret and key. */}}
{{- define "maddpg.prometheusSecrets" -}}
{{- $prometheus := .Values.extender.prometheus -}}
{{- $found := dict -}}
{{- range $name, $from := dict "token" $prometheus.token "password" $prometheus.basicAuth "headers" $prometheus.headers -}}
{{- if $from.secret -}}
{{- $_ := set $found $name (pick $from "secret" "key") -}}
{{- end -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}

{{- define "maddpg.extenderVolumes" -}}
- name: settings
  configMap:
    name: {{ include "maddpg.extenderName" . }}
- name: tmp
  emptyDir:
    sizeLimit: 16Mi
{{- if eq (include "maddpg.tls" .) "true" }}
- name: server-tls
  secret:
    secretName: {{ include "maddpg.serverSecret" . | quote }}
    defaultMode: 0440
{{- end }}
{{- range $name := list "bundle" "candidate" }}
{{- $from := get $.Values.extender $name }}
{{- if $from.configMap }}
- name: {{ $name }}
  configMap:
    name: {{ $from.configMap | quote }}
{{- else if $from.persistentVolumeClaim }}
- name: {{ $name }}
  persistentVolumeClaim:
    claimName: {{ $from.persistentVolumeClaim | quote }}
    readOnly: true
{{- end }}
{{- end }}
{{- with .Values.extender.prometheus }}
{{- if or .ca.configMap .ca.secret }}
- name: prometheus-ca
  {{- if .ca.configMap }}
  configMap:
    name: {{ .ca.configMap | quote }}
  {{- else }}
  secret:
    secretName: {{ .ca.secret | quote }}
    defaultMode: 0440
  {{- end }}
    items:
      - key: {{ .ca.key | quote }}
        path: ca.crt
{{- end }}
{{- end }}
{{- range $name, $from := include "maddpg.prometheusSecrets" . | fromYaml }}
- name: prometheus-{{ $name }}
  secret:
    secretName: {{ $from.secret | quote }}
    defaultMode: 0440
    items:
      - key: {{ $from.key | quote }}
        path: {{ $name }}
{{- end }}
{{- with .Values.extender.kubelet.ca }}
{{- if or .configMap .secret }}
- name: kubelet-ca
  {{- if .configMap }}
  configMap:
    name: {{ .configMap | quote }}
  {{- else }}
  secret:
    secretName: {{ .secret | quote }}
    defaultMode: 0440
  {{- end }}
    items:
      - key: {{ .key | quote }}
        path: ca.crt
{{- end }}
{{- end }}
{{- with .Values.extender.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Seconds from the signal to the kill: the drain, then the answers in progress. */}}
{{- define "maddpg.grace" -}}
{{- $settings := default dict .Values.extender.settings -}}
{{- add .Values.extender.drainSeconds (default 10 $settings.shutdown_grace_s | float64 | ceil | int) (default 0 $settings.shutdown_delay_s | float64 | ceil | int) 5 -}}
{{- end -}}

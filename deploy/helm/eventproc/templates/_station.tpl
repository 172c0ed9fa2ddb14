{{/*
One station's Deployment.
Call with (dict "top" . "station" name "name" suffix "values" values "command" list "ports" list "env" text "mounts" text "volumes" text)
and, where they differ: "image", "grace", "replicas", "resources", "podSecurity", "labels", "noHostUsers", "procMount", "lastCalls" (it is called by
others, who are sent to it for a moment longer), "storage" ("whole": the claim and the object store's login; "files": of the handlers' files alone).
*/}}
{{- define "eventproc.deployment" -}}
{{- $top := .top -}}
{{- $v := .values -}}
{{- $replicas := .replicas | default $v.replicas -}}
{{- $scaled := and (ne $top.Values.autoscaling.kind "none") (ne .station "dispatcher") (or (eq .station "executor") (eq $top.Values.autoscaling.kind "hpa")) -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "eventproc.fullname" $top }}-{{ .name }}
  labels:
    {{- include "eventproc.labels" $top | nindent 4 }}
    app.kubernetes.io/component: {{ .station }}
    {{- with .labels }}{{ . | nindent 4 }}{{ end }}
spec:
  {{- if not $scaled }}
  replicas: {{ $replicas }}
  {{- else }}
  {{- /* the scaler's to say; but a value that was there and is left out becomes 1 until it says so */}}
  {{- with (lookup "apps/v1" "Deployment" $top.Release.Namespace (printf "%s-%s" (include "eventproc.fullname" $top) .name)).spec }}
  replicas: {{ .replicas }}
  {{- end }}
  {{- end }}
  revisionHistoryLimit: 5
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels:
      {{- include "eventproc.selector" $top | nindent 6 }}
      app.kubernetes.io/component: {{ .station }}
      {{- with .labels }}{{ . | nindent 6 }}{{ end }}
  template:
    metadata:
      labels:
        {{- include "eventproc.labels" $top | nindent 8 }}
        app.kubernetes.io/component: {{ .station }}
        {{- with .labels }}{{ . | nindent 8 }}{{ end }}
      {{- with $v.annotations }}
      annotations: {{ toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ include "eventproc.fullname" $top }}-{{ .station }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- if .noHostUsers }}
      hostUsers: false
      {{- end }}
      terminationGracePeriodSeconds: {{ .grace | default $v.terminationGracePeriodSeconds }}
      {{- with $top.Values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with $top.Values.imagePullSecrets }}
      imagePullSecrets: {{ toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- .podSecurity | default (include "eventproc.podSecurity" $top) | nindent 8 }}
      {{- if $top.Values.topologySpread.enabled }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: {{ $top.Values.topologySpread.topologyKey }}
          whenUnsatisfiable: {{ $top.Values.topologySpread.whenUnsatisfiable }}
          labelSelector:
            matchLabels:
              {{- include "eventproc.selector" $top | nindent 14 }}
              app.kubernetes.io/component: {{ .station }}
              {{- with .labels }}{{ . | nindent 14 }}{{ end }}
      {{- end }}
      {{- with $v.nodeSelector }}
      nodeSelector: {{ toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.tolerations }}
      tolerations: {{ toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.affinity }}
      affinity: {{ toYaml . | nindent 8 }}
      {{- end }}
      {{- $files := "" }}
      {{- if eq (.storage | default "") "files" }}
      {{- $files = include "eventproc.filesFolder" $top }}
      {{- end }}
      {{- if $files }}
      initContainers:  # a folder that the kubelet made would be root's
        - name: files
          image: {{ .image | default (include "eventproc.image" $top) | quote }}
          imagePullPolicy: {{ $top.Values.image.pullPolicy }}
          command: [mkdir, -p, /var/lib/eventproc/{{ $files }}]
          securityContext:
            {{- include "eventproc.containerSecurity" $top | nindent 12 }}
          resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 64Mi}}
          volumeMounts:
            - {name: storage, mountPath: /var/lib/eventproc}
      {{- end }}
      containers:
        - name: {{ .station }}
          image: {{ .image | default (include "eventproc.image" $top) | quote }}
          imagePullPolicy: {{ $top.Values.image.pullPolicy }}
          command: {{ toJson .command }}
          securityContext:
            {{- include "eventproc.containerSecurity" $top | nindent 12 }}
            {{- with .procMount }}
            procMount: {{ . }}
            {{- end }}
          ports:
            - {name: metrics, containerPort: 9464, protocol: TCP}
            {{- range .ports }}
            - {{ toJson . }}
            {{- end }}
          env:
            {{- $made := printf "%s\n%s\n" (include "eventproc.stationEnv" (dict "top" $top "env" $v.env) | trim) (.env | trim) }}
            {{- $made | trim | nindent 12 }}
            {{- include "eventproc.settings" (dict "top" $top "env" $v.env "where" (printf "%s.env" .station) "made" $made) | trim | nindent 12 }}
          {{- $login := $top.Values.storage.envSecret }}
          {{- if eq (.storage | default "") "files" }}{{ $login = $top.Values.storage.filesEnvSecret | default $login }}{{ end }}
          {{- if and .storage $login }}
          envFrom:
            - secretRef: {name: {{ $login }}}
          {{- end }}
          {{- if .lastCalls }}
          lifecycle: {preStop: {exec: {command: [sleep, "5"]}}}  # until nobody is sent here any more
          {{- end }}
          resources: {{ .resources | default $v.resources | toJson }}
          startupProbe:
            httpGet: {path: /healthz, port: metrics}
            periodSeconds: 2
            failureThreshold: 150  # five minutes: on a node that is busy with starting others it takes minutes, and a restart begins anew
          livenessProbe:
            httpGet: {path: /healthz, port: metrics}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 3
            terminationGracePeriodSeconds: 30  # what hangs does not use its grace
          readinessProbe:
            httpGet: {path: /readyz, port: metrics}
            periodSeconds: 5
            timeoutSeconds: 5
            failureThreshold: 2
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- with .mounts | trim }}{{ . | nindent 12 }}{{ end }}
            {{- if $files }}
            - {name: storage, mountPath: /var/lib/eventproc/{{ $files }}, subPath: {{ $files }}}
            {{- else if and (eq (.storage | default "") "whole") $top.Values.storage.claim }}
            - {name: storage, mountPath: /var/lib/eventproc}
            {{- end }}
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: {{ .tmp | default "1Gi" }}}
        {{- with .volumes | trim }}{{ . | nindent 8 }}{{ end }}
        {{- if or $files (and (eq (.storage | default "") "whole") $top.Values.storage.claim) }}
        - name: storage
          persistentVolumeClaim: {claimName: {{ $top.Values.storage.claim }}}
        {{- end }}
{{- end -}}

{{/* Variables of every station; call with (dict "top" . "env" its own). */}}
{{- define "eventproc.stationEnv" -}}
- {name: EVENTPROC_METRICS_HOST, value: "0.0.0.0"}
- {name: EVENTPROC_METRICS_PORT, value: "9464"}
{{- if not (hasKey (.env | default dict) "EVENTPROC_LOG_LEVEL") }}
- {name: EVENTPROC_LOG_LEVEL, value: {{ .top.Values.logLevel }}}
{{- end }}
{{- with .top.Values.tracing.endpoint }}
- {name: OTEL_TRACES_EXPORTER, value: otlp}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- end -}}

{{/* The folder of the claim with handlers' files, as in files; nothing where they are not in it. */}}
{{- define "eventproc.filesFolder" -}}
{{- if and .Values.storage.claim (hasPrefix "file:///var/lib/eventproc/" .Values.storage.files) -}}
{{ trimPrefix "file:///var/lib/eventproc/" .Values.storage.files | trimSuffix "/" }}
{{- end -}}
{{- end -}}

{{/* Account, disruption budget and autoscaler of a station; the same call, "account" where it is to be made. */}}
{{- define "eventproc.besides" -}}
{{- $top := .top -}}
{{- $full := include "eventproc.fullname" $top -}}
{{- if .account }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $full }}-{{ .station }}
  labels:
    {{- include "eventproc.labels" $top | nindent 4 }}
    app.kubernetes.io/component: {{ .station }}
automountServiceAccountToken: false
{{- end }}
{{- if $top.Values.podDisruptionBudget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $full }}-{{ .name }}
  labels:
    {{- include "eventproc.labels" $top | nindent 4 }}
    app.kubernetes.io/component: {{ .station }}
spec:
  maxUnavailable: {{ $top.Values.podDisruptionBudget.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "eventproc.selector" $top | nindent 6 }}
      app.kubernetes.io/component: {{ .station }}
      {{- with .labels }}{{ . | nindent 6 }}{{ end }}
{{- end }}
{{- if and (eq $top.Values.autoscaling.kind "hpa") (ne .station "dispatcher") }}
{{- $least := .replicas | default .values.replicas }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $full }}-{{ .name }}
  labels:
    {{- include "eventproc.labels" $top | nindent 4 }}
    app.kubernetes.io/component: {{ .station }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ $full }}-{{ .name }}}
  minReplicas: {{ $least }}
  maxReplicas: {{ max $least (ternary $top.Values.autoscaling.maxReplicas $top.Values.autoscaling.stationsMaxReplicas (eq .station "executor")) }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ $top.Values.autoscaling.targetCpu }}}
{{- end }}
{{- end -}}

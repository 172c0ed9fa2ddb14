{{/*
One station's Deployment.
Call with (dict "top" . "station" name "name" suffix "values" values "command" list "ports" list "env" text "mounts" text "volumes" text)
and, where they differ: "image", "grace", "replicas", "resources", "podSecurity", "labels", "hostUsers", "procMount".
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
      terminationGracePeriodSeconds: {{ .grace | default 30 }}
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
            - {name: EVENTPROC_METRICS_HOST, value: "0.0.0.0"}
            - {name: EVENTPROC_METRICS_PORT, value: "9464"}
            - {name: EVENTPROC_LOG_LEVEL, value: {{ $top.Values.logLevel }}}
            {{- with $top.Values.tracing.endpoint }}
            - {name: OTEL_TRACES_EXPORTER, value: otlp}
            - {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
            {{- end }}
            {{- .env | trim | nindent 12 }}
            {{- range $name, $value := $v.env }}
            - {name: {{ $name }}, value: {{ $value | toString | quote }}}
            {{- end }}
          {{- if and .storage $top.Values.storage.envSecret }}
          envFrom:
            - secretRef: {name: {{ $top.Values.storage.envSecret }}}
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
          readinessProbe:
            httpGet: {path: /readyz, port: metrics}
            periodSeconds: 5
            timeoutSeconds: 5
            failureThreshold: 2
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- with .mounts | trim }}{{ . | nindent 12 }}{{ end }}
            {{- if and .storage $top.Values.storage.claim }}
            - {name: storage, mountPath: /var/lib/eventproc}
            {{- end }}
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: {{ .tmp | default "1Gi" }}}
        {{- with .volumes | trim }}{{ . | nindent 8 }}{{ end }}
        {{- if and .storage $top.Values.storage.claim }}
        - name: storage
          persistentVolumeClaim: {claimName: {{ $top.Values.storage.claim }}}
        {{- end }}
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

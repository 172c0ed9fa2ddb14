{{- define "eventproc.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "eventproc.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "eventproc.labels" -}}
{{ include "eventproc.selector" . }}
app.kubernetes.io/part-of: eventproc
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "eventproc.tag" -}}{{ .Values.image.tag | default .Chart.AppVersion }}{{- end -}}
{{- define "eventproc.image" -}}{{ .Values.image.repository }}:{{ include "eventproc.tag" . }}{{- end -}}

{{- define "eventproc.runtimes" -}}{{ keys .Values.executor.runtimes | sortAlpha | join "," }}{{- end -}}

{{- define "eventproc.sealSecret" -}}{{ .Values.secrets.seal.existingSecret | default (printf "%s-seal" (include "eventproc.fullname" .)) }}{{- end -}}
{{- define "eventproc.tokenSecret" -}}{{ .Values.secrets.serviceToken.existingSecret | default (printf "%s-service-token" (include "eventproc.fullname" .)) }}{{- end -}}
{{- define "eventproc.tlsSecret" -}}{{ .Values.secrets.tls.existingSecret | default (printf "%s-registry-tls" (include "eventproc.fullname" .)) }}{{- end -}}

{{/* The Secret with a station's way into Kafka; call with (dict "top" . "station" name). */}}
{{- define "eventproc.kafkaSecret" -}}
{{- $kafka := .top.Values.kafka -}}
{{- if and (eq $kafka.topics.mode "strimzi") $kafka.strimzi.users -}}
{{ include "eventproc.fullname" .top }}-{{ .station }}
{{- else -}}
{{ get $kafka.auth.stationSecrets .station | default $kafka.auth.secret }}
{{- end -}}
{{- end -}}

{{- define "eventproc.kafkaCaSecret" -}}
{{- $kafka := .Values.kafka -}}
{{- if and (eq $kafka.topics.mode "strimzi") (not $kafka.caSecret.name) -}}{{ $kafka.strimzi.cluster }}-cluster-ca-cert
{{- else -}}{{ $kafka.caSecret.name }}{{- end -}}
{{- end -}}

{{/* The restricted Pod Security Standard. */}}
{{- define "eventproc.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "eventproc.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Variables of Kafka; call with (dict "top" . "station" name). */}}
{{- define "eventproc.kafkaEnv" -}}
{{- $kafka := .top.Values.kafka -}}
{{- $tls := or $kafka.tls (eq $kafka.auth.type "tls") -}}
{{- $sasl := has $kafka.auth.type (list "scram-sha-512" "oauthbearer") -}}
- {name: KAFKA_BOOTSTRAP_SERVERS, value: {{ required "kafka.bootstrapServers: name at least one broker, as in kafka.example.com:9093" $kafka.bootstrapServers | quote }}}
- {name: EVENTPROC_KAFKA_SECURITY_PROTOCOL, value: {{ ternary (ternary "SASL_SSL" "SASL_PLAINTEXT" $tls) (ternary "SSL" "PLAINTEXT" $tls) $sasl }}}
- {name: EVENTPROC_KAFKA_REPLICATION, value: {{ $kafka.replication | quote }}}
- {name: EVENTPROC_MAX_MESSAGE_BYTES, value: {{ int64 $kafka.maxMessageBytes | quote }}}
{{- if ne .station "topics" }}
- {name: EVENTPROC_KAFKA_MAKE_TOPICS, value: "false"}
{{- end }}
{{- if and $tls (include "eventproc.kafkaCaSecret" .top) }}
- {name: EVENTPROC_KAFKA_SSL_CAFILE, value: /etc/eventproc/kafka-ca/{{ $kafka.caSecret.key }}}
{{- end }}
{{- if eq $kafka.auth.type "tls" }}
- {name: EVENTPROC_KAFKA_SSL_CERTFILE, value: /etc/eventproc/kafka/user.crt}
- {name: EVENTPROC_KAFKA_SSL_KEYFILE, value: /etc/eventproc/kafka/user.key}
{{- else if eq $kafka.auth.type "scram-sha-512" }}
- {name: EVENTPROC_KAFKA_SASL_MECHANISM, value: SCRAM-SHA-512}
- {name: EVENTPROC_KAFKA_SASL_JAAS_CONFIG_FILE, value: /etc/eventproc/kafka/sasl.jaas.config}
{{- else if eq $kafka.auth.type "oauthbearer" }}
- {name: EVENTPROC_KAFKA_SASL_MECHANISM, value: OAUTHBEARER}
- {name: EVENTPROC_KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL, value: {{ required "kafka.auth.oauth.tokenEndpointUrl: where tokens come from, as in https://login.example.com/token" $kafka.auth.oauth.tokenEndpointUrl | quote }}}
- {name: EVENTPROC_KAFKA_SASL_OAUTHBEARER_CLIENT_ID, value: {{ $kafka.auth.oauth.clientId | quote }}}
- {name: EVENTPROC_KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET_FILE, value: /etc/eventproc/kafka/client-secret}
{{- with $kafka.auth.oauth.scope }}
- {name: EVENTPROC_KAFKA_SASL_OAUTHBEARER_SCOPE, value: {{ . | quote }}}
{{- end }}
{{- if $kafka.auth.oauth.caSecret.name }}
- {name: EVENTPROC_KAFKA_SASL_OAUTHBEARER_CAFILE, value: /etc/eventproc/oauth-ca/{{ $kafka.auth.oauth.caSecret.key }}}
{{- end }}
{{- end }}
{{- with $kafka.schemaRegistryUrl }}
- {name: EVENTPROC_SCHEMA_REGISTRY_URL, value: {{ . | quote }}}
{{- end }}
{{- end -}}

{{- define "eventproc.kafkaMounts" -}}
{{- $kafka := .top.Values.kafka -}}
{{- if and (or $kafka.tls (eq $kafka.auth.type "tls")) (include "eventproc.kafkaCaSecret" .top) }}
- {name: kafka-ca, mountPath: /etc/eventproc/kafka-ca, readOnly: true}
{{- end }}
{{- if ne $kafka.auth.type "none" }}
- {name: kafka, mountPath: /etc/eventproc/kafka, readOnly: true}
{{- end }}
{{- if and (eq $kafka.auth.type "oauthbearer") $kafka.auth.oauth.caSecret.name }}
- {name: oauth-ca, mountPath: /etc/eventproc/oauth-ca, readOnly: true}
{{- end }}
{{- end -}}

{{- define "eventproc.kafkaVolumes" -}}
{{- $kafka := .top.Values.kafka -}}
{{- if and (or $kafka.tls (eq $kafka.auth.type "tls")) (include "eventproc.kafkaCaSecret" .top) }}
- name: kafka-ca
  secret: {secretName: {{ include "eventproc.kafkaCaSecret" .top }}, defaultMode: 0440}
{{- end }}
{{- if ne $kafka.auth.type "none" }}
- name: kafka
  secret: {secretName: {{ required (printf "kafka.auth.secret: names the Secret with %s's way into Kafka (or kafka.auth.stationSecrets.%s)" .station .station) (include "eventproc.kafkaSecret" .) }}, defaultMode: 0440}
{{- end }}
{{- if and (eq $kafka.auth.type "oauthbearer") $kafka.auth.oauth.caSecret.name }}
- name: oauth-ca
  secret: {secretName: {{ $kafka.auth.oauth.caSecret.name }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{/* The ledger's address and the CA of its server; call with (dict "top" . "station" name). */}}
{{- define "eventproc.ledgerEnv" -}}
- name: EVENTPROC_LEDGER_URL
  valueFrom:
    secretKeyRef:
      name: {{ required "ledger.existingSecret: names the Secret that holds the database's URL" (get .top.Values.ledger.stationSecrets .station | default .top.Values.ledger.existingSecret) }}
      key: {{ .top.Values.ledger.key }}
{{- end -}}
{{- define "eventproc.ledgerMounts" -}}
{{- if .Values.ledger.caSecret }}
- {name: ledger-ca, mountPath: /etc/eventproc/ledger-ca, readOnly: true}
{{- end }}
{{- end -}}
{{- define "eventproc.ledgerVolumes" -}}
{{- with .Values.ledger.caSecret }}
- name: ledger-ca
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{/* A volume of one Secret; call with (dict "name" n "secret" s). */}}
{{- define "eventproc.secretVolume" -}}
- name: {{ .name }}
  secret: {secretName: {{ .secret }}, defaultMode: 0440}
{{- end -}}

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

{{/* Names of the runtimes, those set to null left out. */}}
{{- define "eventproc.runtimes" -}}
{{- $names := list -}}
{{- range $name, $own := .Values.executor.runtimes -}}{{- if not (kindIs "invalid" $own) -}}{{- $names = append $names $name -}}{{- end -}}{{- end -}}
{{- if not $names -}}{{- fail "executor.runtimes: names no runtime; {py3.11: {}} would" -}}{{- end -}}
{{- $names | sortAlpha | join "," -}}
{{- end -}}

{{/*
Settings of a pod beside those that the chart makes: those of all, and above them its own. Call with (dict "top" . "env" map "where" its path "made" the chart's own, as text).
What several stations must agree on is refused where one alone would get it.
*/}}
{{- define "eventproc.settings" -}}
{{- range $name, $_ := .env -}}
{{- if or (hasPrefix "EVENTPROC_KEEP_" $name) (has $name (include "eventproc.agreed" $ | fromJsonArray)) -}}
{{- fail (printf "%s.%s: several stations must have the same; set it once, as settings.%s" $.where $name $name) -}}
{{- end -}}
{{- end -}}
{{- $all := deepCopy .top.Values.settings -}}
{{- range $name, $value := .env -}}{{- $_ := set $all $name $value -}}{{- end -}}
{{- range $name, $value := $all }}
{{- if regexMatch (printf "name: %s[,\n]" $name) $.made }}
{{- fail (printf "%s.%s: is set by the chart, out of a value of its own; change that" (ternary $.where "settings" (hasKey ($.env | default dict) $name)) $name) }}
{{- end }}
- {name: {{ $name }}, value: {{ include "eventproc.plain" $value | quote }}}
{{- end -}}
{{- end -}}

{{/* A number as a person wrote it: Helm reads 1000000 from a values file as 1e+06. */}}
{{- define "eventproc.plain" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) -}}{{ int64 . }}{{- else -}}{{ toString . }}{{- end -}}
{{- end -}}

{{/* What registry, dispatcher, notifier and eventproc-admin share (ledger/settings.py, LeaseSettings), and consumer groups that two of them name. */}}
{{- define "eventproc.agreed" -}}
["EVENTPROC_LEASE_S", "EVENTPROC_MAX_ATTEMPTS", "EVENTPROC_MAX_LOST_TOGETHER", "EVENTPROC_MAX_HAND_BACKS", "EVENTPROC_RUNS_PER_OWNER",
 "EVENTPROC_RUNS_PER_HANDLER", "EVENTPROC_OWNER_SHARE", "EVENTPROC_INVITED_PER_OWNER", "EVENTPROC_REINVITE_AFTER_S",
 "EVENTPROC_MAIL_STORM_AFTER", "EVENTPROC_MAIL_STORM_WINDOW_S", "EVENTPROC_MAIL_DIGEST_EVERY_S", "EVENTPROC_MAIL_DIGEST_MOST",
 "DISPATCHER_GROUP"]
{{- end -}}

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
{{- if and $sasl (not $tls) (not $kafka.auth.plaintext) -}}
{{- fail (printf "kafka.tls: is false, so that with kafka.auth.type %s what proves who we are would go in the clear; set it to true, or kafka.auth.plaintext to true where that is wanted" $kafka.auth.type) -}}
{{- end -}}
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
{{- with $kafka.schemaRegistry.secret }}
- name: EVENTPROC_SCHEMA_REGISTRY_USER
  valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $kafka.schemaRegistry.userKey }}}}
- name: EVENTPROC_SCHEMA_REGISTRY_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $kafka.schemaRegistry.passwordKey }}}}
{{- end }}
{{- if $kafka.schemaRegistry.caSecret }}
- {name: EVENTPROC_SCHEMA_REGISTRY_CA, value: /etc/eventproc/schemas-ca/ca.crt}
{{- end }}
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
{{- if and $kafka.schemaRegistryUrl $kafka.schemaRegistry.caSecret }}
- {name: schemas-ca, mountPath: /etc/eventproc/schemas-ca, readOnly: true}
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
{{- if and $kafka.schemaRegistryUrl $kafka.schemaRegistry.caSecret }}
- name: schemas-ca
  secret: {secretName: {{ $kafka.schemaRegistry.caSecret }}, defaultMode: 0440}
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

{{/* Refuses a place of files that is a folder of nothing that stays. */}}
{{- define "eventproc.checkStorage" -}}
{{- range $name := list "files" "archives" -}}
{{- $place := get $.Values.storage $name -}}
{{- if hasPrefix "file:" $place -}}
{{- if not $.Values.storage.claim -}}
{{- fail (printf "storage.claim: is empty, so that storage.%s, %s, would be in a folder of one pod that is gone with it; name a ReadWriteMany claim, or an object store" $name $place) -}}
{{- end -}}
{{- if not (hasPrefix "file:///var/lib/eventproc/" $place) -}}
{{- fail (printf "storage.%s: is %s; storage.claim is mounted at /var/lib/eventproc, so it should begin with file:///var/lib/eventproc/" $name $place) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tightship.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "tightship.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tightship.labels" -}}
{{ include "tightship.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "tightship.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "tightship.pod" -}}
serviceAccountName: {{ include "tightship.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
volumes:
  - name: tmp
    emptyDir: {medium: Memory, sizeLimit: 64Mi}
  {{- if .Values.workspace.existingClaim }}
  - name: workspace
    persistentVolumeClaim:
      claimName: {{ .Values.workspace.existingClaim }}
      readOnly: true
  {{- end }}
  {{- if .Values.postgres.caConfigMap }}
  - name: postgres-ca
    configMap:
      name: {{ .Values.postgres.caConfigMap }}
  {{- end }}
{{- end }}

{{- define "tightship.container" -}}
image: {{ include "tightship.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
workingDir: /workspace
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - name: tmp
    mountPath: /tmp
  {{- if .Values.workspace.existingClaim }}
  - name: workspace
    mountPath: /workspace
    readOnly: true
  {{- end }}
  {{- if .Values.postgres.caConfigMap }}
  - name: postgres-ca
    mountPath: /etc/tightship/postgres
    readOnly: true
  {{- end }}
{{- end }}

{{- define "tightship.storeEnv" -}}
- name: PGHOST
  value: {{ .Values.postgres.host | quote }}
- name: PGPORT
  value: {{ .Values.postgres.port | quote }}
- name: PGUSER
  value: {{ .Values.postgres.user | quote }}
- name: PGDATABASE
  value: {{ .Values.postgres.database | quote }}
- name: PGSSLMODE
  value: {{ .Values.postgres.sslmode | quote }}
{{- if hasPrefix "verify-" .Values.postgres.sslmode }}
- name: PGSSLROOTCERT
  value: {{ if .Values.postgres.caConfigMap }}/etc/tightship/postgres/ca.crt{{ else }}system{{ end }}
{{- end }}
- name: PGPASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .Values.postgres.password.secret }}
      key: {{ .Values.postgres.password.key }}
- name: TIGHTSHIP_MASTER_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .Values.masterKey.secret }}
      key: {{ .Values.masterKey.key }}
{{- end }}

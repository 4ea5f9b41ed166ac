{{- define "aigw.labels" -}}
app.kubernetes.io/part-of: envoy-ai-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* The image of a part: its own members over the common ones. */}}
{{- define "aigw.image" -}}
{{- $image := merge (deepCopy .own) .root.Values.image -}}
{{ $image.repository }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end -}}

{{- define "aigw.pullPolicy" -}}
{{- (merge (deepCopy .own) .root.Values.image).pullPolicy -}}
{{- end -}}

{{/* What every container of ours may do: nothing. */}}
{{- define "aigw.securityContext" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
runAsNonRoot: true
{{- end -}}

{{- define "aigw.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* --endpoint-prefixes: those that are set. */}}
{{- define "aigw.endpointPrefixes" -}}
{{- $all := list -}}
{{- range $name := list "openai" "cohere" "anthropic" -}}
{{- $prefix := index $.Values.endpointConfig $name -}}
{{- if not (kindIs "invalid" $prefix) -}}
{{- $all = append $all (printf "%s:%s" $name $prefix) -}}
{{- end -}}
{{- end -}}
{{- join "," $all -}}
{{- end -}}

{{- define "aigw.pod" -}}
{{- with .root.Values.global.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with .values.affinity }}
affinity: {{ toJson . }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

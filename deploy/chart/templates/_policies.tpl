{{/* What both kinds of policies have in their schema. */}}
{{- define "myelin.target-refs" -}}
description: Of the policy's own namespace. Absent, all workloads of the namespace; in the mesh's own namespace, all of the mesh.
type: array
minItems: 1
maxItems: 16
x-kubernetes-list-type: atomic
items:
  type: object
  required: [kind, name]
  properties:
    group: {type: string, enum: [""], description: The core group.}
    kind: {type: string, enum: [Service, ServiceAccount]}
    name: {type: string, minLength: 1, maxLength: 253}
{{- end }}

{{- define "myelin.policy-mode" -}}
description: Strict, or until when plaintext may enter as well.
type: string
enum: [Strict, Permissive]
{{- end }}

{{- define "myelin.policy-until" -}}
description: Such as 2027-03-01T00:00:00Z; from then on it is strict.
type: string
format: date-time
maxLength: 40
{{- end }}

{{- define "myelin.policy-status" -}}
type: object
properties:
  conditions:
    type: array
    maxItems: 16
    x-kubernetes-list-type: map
    x-kubernetes-list-map-keys: [type]
    items:
      type: object
      required: [type, status, reason, message, lastTransitionTime]
      properties:
        type: {type: string, minLength: 1, maxLength: 316}
        status: {type: string, enum: ["True", "False", Unknown]}
        reason: {type: string, minLength: 1, maxLength: 1024}
        message: {type: string, maxLength: 32768}
        observedGeneration: {type: integer, format: int64, minimum: 0}
        lastTransitionTime: {type: string, format: date-time}
{{- end }}

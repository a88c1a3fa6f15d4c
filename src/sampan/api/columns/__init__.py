"""Table columns: what each kind shows in ``kubectl get``, as functions of a body and now."""

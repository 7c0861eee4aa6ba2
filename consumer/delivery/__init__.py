"""The delivery of records: decode, dispatch, call, settle, commit; the guarantees are kept here."""

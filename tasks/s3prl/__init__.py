"""The bridge to s3prl 0.4.18: SUPERB's official recipes, with our encoders as the upstream.

`python -m tasks.s3prl MODULE ...` runs a module of s3prl as `python -m s3prl.MODULE ...` would, on
the torch and torchaudio of today and with `-u bench_local -k MODEL` among its upstreams. Nothing is
copied into s3prl and nothing of it is edited: what it misses is put in place in that process alone.

    shim        puts all of it in place: audio, sox, stubs, repairs
    upstream    our encoder behind s3prl's interface
    libriphone, snips   two corpora whose readers the package on PyPI lacks
    recipes     the ten recipes; settings/ has theirs, as s3prl ships them in its repository
    data        where the corpora lie, checked before s3prl starts
    readings    the scores in a folder of s3prl, in SUPERB's units
    diarization, detection   the two that s3prl leaves to programs of others
"""

"""The scenario: what one run is asked to do.

`model` is its shape, `loader` reads it from YAML (`document` the text, `explain` what is wrong with it), `threshold` is what it
must meet, `plan` what it will take, and `units` how durations, money and rates are written. The package itself imports
nothing: each part costs only its user.
"""

"""What a run shows for itself: evidence, figures, the report, the model card, validation.

All of it reads what lies in the run directory as plain values (:mod:`.run_data`), so that a report can be made of a
run that is going on, was stopped, or lies on another machine.
"""

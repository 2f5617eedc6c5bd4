#!/bin/bash
# The whole step on absent chips, a line for each: experiments/pair_loss/run.sh >> step.jsonl
for form in ring pairless classifier dense; do
  for choice in 'v5e-256 FORM full 1' 'v5e-16 FORM full 4'; do
    timeout 600 python experiments/pair_loss/step.py ${choice/FORM/$form} 2>/dev/null
  done
done
for form in ring classifier; do
  timeout 600 python experiments/pair_loss/step.py v5e-16 $form none 128 2>/dev/null
  timeout 600 python experiments/pair_loss/step.py v5e-256 $form dots 1 2>/dev/null
done

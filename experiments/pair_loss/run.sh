#!/bin/bash
# The whole step on absent chips, a line for each: experiments/pair_loss/run.sh >> step.jsonl
for choice in 'v5e-16 ring full 2 scan' 'v5e-16 pairless full 2 scan' 'v5e-256 ring full 1 scan' \
  'v5e-256 pairless full 1 scan' 'v5e-256 classifier full 1 scan' 'v5e-256 dense full 1 scan' \
  'v5e-16 ring full 1' 'v5e-16 pairless full 1' 'v5e-16 dense full 1' 'v5e-16 classifier full 1' \
  'v5e-16 ring full 4' 'v5e-16 pairless full 4' 'v5e-16 classifier full 4' \
  'v5e-256 ring full 1' 'v5e-256 pairless full 1' 'v5e-256 classifier full 1' 'v5e-256 dense full 1' \
  'v5e-256 ring dots 1' 'v5e-256 classifier dots 1' 'v5e-16 ring none 128'; do
  python experiments/pair_loss/step.py $choice 2>/dev/null
done

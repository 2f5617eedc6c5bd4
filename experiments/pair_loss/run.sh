#!/bin/bash
# The whole step on absent chips, a line for each: experiments/pair_loss/run.sh >> step.jsonl
for choice in 'v5e-16 pairless full 1' 'v5e-16 dense full 1' 'v5e-16 classifier full 1' 'v5e-16 ring full 1' \
  'v5e-16 ring full 2 scan' 'v5e-16 pairless full 2 scan' 'v5e-16 dense full 2 scan' 'v5e-16 ring dots 8 scan' \
  'v5e-16 ring dots 16 scan' 'v5e-16 pairless dots 16 scan' 'v5e-16 dense dots 16 scan' \
  'v5e-16 classifier dots 16 scan' 'v5e-256 ring dots 1 scan' 'v5e-256 pairless dots 1 scan' \
  'v5e-256 dense dots 1 scan' 'v5e-256 classifier dots 1 scan' 'v5e-16 ring full 2 depth=1'; do
  python experiments/pair_loss/step.py $choice 2>/dev/null
done

"""Shared code of the course: import what you need from its modules, by name. Which file answers which question?
The first ten are files, in the order in which to read them, an evening after chapter 07. The others are folders.

layers       what are Linear, BatchNorm1d, Tanh, Embedding and Flatten?
models       how are the lecture's networks drawn, and one taken out of a stack?
train        how is a network trained, evaluated, sampled from?
by_hand      how is the backward pass of the course's networks written out?
data         where do the names come from, and how do they become windows and splits?
resnet       what is in ResNet-50?
compare      is a difference real, or luck?
claims       what does the lecture say, and what was measured?
plots        how is a figure of the lecture drawn?
drawing      how is a network drawn, and a guess shown beside the truth?
folding      how does a BatchNorm go into the layer before it?
diagnostics  is this network healthy? Four pictures and warnings, for any network: take the folder along
widgets      the panels with sliders, a file each
checks       is this answer to an exercise right, and if not, why?
clinic       the networks with faults that X05 treats
"""

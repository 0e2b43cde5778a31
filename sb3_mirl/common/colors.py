"""
Colours that people with colour vision deficiencies can tell apart.

Source: Okabe and Ito, *Color Universal Design*, 2008, https://jfly.uni-koeln.de/color/
"""

BLACK = "#000000"
ORANGE = "#E69F00"
SKY_BLUE = "#56B4E9"
GREEN = "#009E73"
BLUE = "#0072B2"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
#: Not from the source; for elements in the background
GRAY = "#666666"

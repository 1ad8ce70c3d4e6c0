"""The columns of the table of stages that the compiled passes walk: a chain's layers, one a row, all in whole numbers.

`…_AT` is where something begins. X is a stage's input and Y its output; a vector is an image of one line.
"""

KIND = 0
RELU = 1
"""Whether the output goes through one."""
X, X_IMAGE, X_ROW, X_PIXEL, X_FIRST = range(2, 7)
"""Where the input is in `work`, the steps to the next image, row and pixel, and where its border ends."""
Y, Y_IMAGE, Y_ROW, Y_PIXEL, Y_FIRST = range(7, 12)
X_GRADIENT, Y_GRADIENT = range(12, 14)
"""The gradients by both, which lie as these do; X_GRADIENT < 0 where nobody asks for it."""
HEIGHT, BREADTH = range(14, 16)
"""The output as far as somebody looks at it (of a Flatten: its input)."""
INPUTS, OUTPUTS = range(16, 18)
"""Channels or features as the model has them."""
SIDE, STRIDE = range(18, 20)
"""A convolution's kernel or a pool's window, and the step of the former."""
WEIGHTS, BIAS = range(20, 22)
"""Where they are in the model's flat vector."""
DENSE, TAPS, ENDS_OF_TAPS = range(22, 25)
"""Whether all of a convolution's gradient by Y counts; then where each tap is in a patch, and in that by weights."""
FORWARD, BACKWARD, BY_WEIGHTS, WIDE_BIAS = range(25, 29)
"""A convolution's weights as both passes want them, the gradient by them, and a bias of whole vectors."""
PATCHES, ENDS = range(29, 31)
"""In `places`: where each output's patch and itself begin; of a dense layer: each image's gradient by Y, and by X."""
ROWS_OF = 31
"""In `places`: where some rows of a dense layer's weights begin."""
CHOSEN, DOWN, RIGHT = range(32, 35)
"""Where the patch of what a pool chose begins, from that of its window's first; how far a pixel moves it."""
ENTRIES, CAPACITY, COUNTS = range(35, 38)
"""A convolution's lists: where the first is, how much each may hold, and where its end is."""

TURNED, TURNED_ROWS, NUMBERS = range(38, 41)
"""Of a dense layer among dense ones alone: its weights, inputs × outputs, and behind them its bias; where in `places`
rows begin, and one number for each input. ENTRIES and COUNTS are lists of its inputs by image then."""
BY_INPUT, ENDS_BY_INPUT = range(41, 43)
"""The same lists by input: where the first is, and where the ends are."""

COLUMNS = 43

CONVOLUTION, POOL, FLATTEN, LINEAR = range(4)
"""Kinds of stages."""

BLOCK = 16
"""Rows of a dense layer's weights that are read for the gradient by the input and stepped on while they are near."""

"""The words of captions. The first word of each row is the canonical one; what else is read is in lexicon.py.

A share of the synonyms is only ever read (HELD_OUT_SYNONYMS), so that understanding them can be measured.
"""

COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "crimson", "bright red"),
    "orange": ("orange", "tangerine"),
    "yellow": ("yellow", "golden", "lemon yellow"),
    "green": ("green", "emerald"),
    "cyan": ("cyan", "turquoise"),
    "blue": ("blue", "royal blue"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rosy"),
    "white": ("white", "snow white"),
    "black": ("black", "jet black"),
}
SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "ball": ("ball", "circle", "disc"),
    "box": ("box", "square", "block"),
    "triangle": ("triangle",),
    "star": ("star", "five-pointed star"),
    "ring": ("ring", "hoop"),
    "capsule": ("capsule", "pill"),
}
SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium-sized", "mid-sized", "medium"),
    "large": ("large", "big"),
}
BACKGROUND_WORDS: dict[str, tuple[str, ...]] = {
    "day": ("by day", "under a clear blue sky", "on a sunny day"),
    "sunset": ("at sunset", "in front of a sunset"),
    "night": ("at night", "under a dark night sky"),
    "desert": ("in the desert", "in a sandy desert"),
    "meadow": ("in a meadow", "in front of a green meadow"),
    "ocean": ("by the ocean", "in front of the sea"),
    "lavender": ("in a lavender room", "in a pale violet room"),
    "snow": ("in the snow", "in front of snowy peaks"),
}
HELD_OUT_SYNONYMS: dict[str, tuple[str, str]] = {
    "scarlet": ("colour", "red"),
    "amber": ("colour", "orange"),
    "teal": ("colour", "cyan"),
    "azure": ("colour", "blue"),
    "magenta": ("colour", "pink"),
    "sphere": ("shape", "ball"),
    "cube": ("shape", "box"),
    "lozenge": ("shape", "capsule"),
    "huge": ("size", "large"),
    "mini": ("size", "small"),
    "dusk": ("background", "sunset"),
    "dunes": ("background", "desert"),
    "ascends": ("direction", "up"),
    "plunges": ("direction", "down"),
    "motionless": ("direction", "still"),
}

# Verbs by how a body moves (scene.Body.manner), each with the words that give the direction.
SIDEWAYS = {
    "roll": ("rolls", "is rolling", "moves"),
    "slide": ("slides", "is sliding", "moves", "glides"),
    "drift": ("drifts", "flies", "moves", "glides"),
}
TO_SIDE = {
    "left": ("to the left", "left", "from right to left", "towards the left side"),
    "right": ("to the right", "right", "from left to right", "towards the right side"),
}
VERTICAL = {
    "up": ("floats up", "rises", "moves up", "goes up", "flies upwards"),
    "down": ("sinks", "moves down", "goes down", "floats down", "descends"),
}
STILL = {
    "stand": ("stands still", "rests on the floor", "stays still", "does not move"),
    "hang": ("hangs still in the air", "hovers in place", "stays still"),
}
RELATION_WORDS: dict[str, tuple[str, ...]] = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above",),
    "below": ("below", "under"),
    "behind": ("behind",),
    "in front of": ("in front of",),
}
MATERIAL_WORDS = {"rubber": ("rubber", "bouncy rubber"), "wood": ("wooden",), "clay": ("clay",)}
BOUNCES = ("falls and bounces", "drops and bounces", "bounces on the floor", "bounces up and down")
LANDS = ("falls to the floor", "drops to the floor", "falls down and stays there")
FALLS = ("falls", "drops", "is falling")
HOPS = ("bounces", "hops", "bounces along")
HITS = ("bumps into", "hits", "collides with")
PASSES = {"behind": ("behind", "and passes behind"), "in front of": ("in front of", "and passes in front of")}
ENTERS = {
    "left": ("in from the left", "into view from the left"),
    "right": ("in from the right", "into view from the right"),
}
LEAVES = {
    "left": ("out to the left", "out of view on the left"),
    "right": ("out to the right", "out of view on the right"),
}
CAMERA_WORDS = {
    "pan left": ("the camera pans left", "the camera moves left", "the view pans to the left"),
    "pan right": ("the camera pans right", "the camera moves right", "the view pans to the right"),
    "tilt up": ("the camera tilts up", "the camera moves up", "the view tilts upwards"),
    "tilt down": ("the camera tilts down", "the camera moves down", "the view tilts downwards"),
    "zoom in": ("the camera zooms in", "the camera comes closer", "a slow zoom in"),
    "zoom out": ("the camera zooms out", "the camera backs away", "a slow zoom out"),
    "follow": ("the camera follows", "the camera goes along", "a tracking shot"),
}
STYLE_WORDS = {
    "outline": ("in outline style", "drawn in outline", "as a coloured outline drawing"),
    "neon": ("in neon style", "in glowing neon", "as neon lights in the dark"),
}
EYES = {1: "one eye", 2: "two eyes", 3: "three eyes"}
NUMBERS = {
    1: ("one object", "a single object"),
    2: ("two objects",),
    3: ("three objects",),
    4: ("four objects",),
}
STAGE = (
    "The scene is a small paper theatre.",
    "Everything is cut from paper, with soft shadows.",
    "The clip shows a paper stage with layered scenery.",
    "Soft light falls from the upper left on the paper cut-outs.",
)
BOILERPLATE = (
    "free download", "hd stock video", "click to subscribe", "IMG 2043", "my favourite clip", "watch till the end",
    "4k royalty free", "posted by user",
)  # fmt: skip

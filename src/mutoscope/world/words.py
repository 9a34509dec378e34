"""The words of the world, for writing and for reading. The first word of each row is the canonical one.

A share of the synonyms is only ever read (HELD_OUT_SYNONYMS), so that understanding them can be measured.
"""

from mutoscope.world.stage import BACKGROUNDS

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

# --- reading

ONLY_READ = {
    ("colour", "red"): "ruby, cherry, cherry red, dark red, blood red",
    ("colour", "orange"): "apricot, bright orange",
    ("colour", "yellow"): "gold, lemon, bright yellow, sunny yellow",
    ("colour", "green"): "lime, olive, grass green, dark green, light green, bright green",
    ("colour", "cyan"): "aqua, aquamarine, light blue",
    ("colour", "blue"): "navy, navy blue, cobalt, dark blue, deep blue, bright blue",
    ("colour", "purple"): "indigo, lilac, mauve, dark purple",
    ("colour", "pink"): "fuchsia, hot pink, light pink",
    ("colour", "white"): "ivory, snowy white, pure white",
    ("colour", "black"): "ebony, dark black, coal black",
    ("shape", "ball"): "round ball, disk, globe, bubble, marble",
    ("shape", "box"): "brick, cardboard box, package, carton",
    ("shape", "triangle"): "pyramid",
    ("shape", "star"): "starlet, paper star",
    ("shape", "ring"): "donut, doughnut, torus, annulus",
    ("shape", "capsule"): "tablet, bean",
    ("size", "small"): "miniature, teeny, wee, smallish",
    ("size", "medium"): "normal-sized, average-sized, middling",
    ("size", "large"): "giant, gigantic, enormous, massive, oversized",
    ("background", "sunset"): "sundown, evening, twilight",
    ("background", "night"): "midnight, nighttime, night sky",
    ("background", "desert"): "sand, sahara",
    ("background", "meadow"): "grass, field, grassland, lawn",
    ("background", "ocean"): "seaside, beach, waves, coast",
    ("background", "day"): "daytime, daylight, blue sky, sunny day, during the day",
    ("background", "snow"): "winter, snowfield, wintry",
    ("background", "lavender"): "lavender room, violet room, purple room, lilac room",
    ("direction", "up"): "soars, ascend, rise, climb, climbing, lifting, skyward",
    ("direction", "down"): "sink, descend, descending, fall, drop, dropping, plummets, tumbles",
    ("direction", "left"): "to left, toward the left, towards the left, to the left side, right to left",
    ("direction", "right"): "to right, toward the right, towards the right, to the right side, left to right",
    (
        "direction",
        "still",
    ): "standing, resting, stationary, hovering, sits, sitting, lies, idle, waiting, in place",
    ("relation", "behind"): "in back of, goes behind, passes behind",
    ("relation", "in front of"): "passes in front of",
    ("relation", "above"): "on top of, higher than",
    ("relation", "below"): "underneath, beneath, lower than",
    ("relation", "left of"): "on the left of, on the left side of",
    ("relation", "right of"): "on the right of, on the right side of",
}

READING: dict[str, tuple[str, str]] = {
    **{word: ("colour", name) for name, words in COLOUR_WORDS.items() for word in words},
    **{word: ("shape", name) for name, words in SHAPE_WORDS.items() for word in words},
    **{word: ("size", name) for name, words in SIZE_WORDS.items() for word in words},
    **{word: ("background", name) for name, words in BACKGROUND_WORDS.items() for word in words},
    **{name: ("background", name) for name in BACKGROUNDS if name not in ("day", "lavender", "snow")},
    **{word: ("direction", name) for name, words in TO_SIDE.items() for word in words},
    **{word: ("direction", name) for name, words in VERTICAL.items() for word in words},
    **{word: ("direction", "still") for words in STILL.values() for word in words},
    **{
        word: ("direction", name)
        for name, words in {
            "up": ("up", "upwards", "upward", "ascending", "rising", "climbs", "lifts off"),
            "down": ("down", "downwards", "downward", "falls", "drops", "falling", "sinking", "lands"),
            "left": ("leftwards", "leftward"),
            "right": ("rightwards", "rightward"),
            "still": ("still", "stands", "rests", "hangs", "hovers", "waits"),
        }.items()
        for word in words
    },
    "crate": ("shape", "box"), "circular shape": ("shape", "ball"), "orb": ("shape", "ball"),
    "sea": ("background", "ocean"), "sunny": ("background", "day"), "snowy": ("background", "snow"),
    "sky blue": ("colour", "cyan"),
    **{word: ("material", name) for name, words in MATERIAL_WORDS.items() for word in words},
    "wood": ("material", "wood"), "bouncy": ("material", "rubber"),
    **dict.fromkeys((*BOUNCES, *HOPS, "bounce", "bouncing"), ("event", "bounce")),
    **dict.fromkeys(LANDS, ("direction", "down")),
    **dict.fromkeys(FALLS, ("direction", "down")),
    **{word: ("event", f"enter {side}") for side, words in ENTERS.items() for word in words},
    **{word: ("event", f"leave {side}") for side, words in LEAVES.items() for word in words},
    **{f"enters from the {side}": ("event", f"enter {side}") for side in ENTERS},
    **{f"leaves {way} the {side}": ("event", f"leave {side}") for side in LEAVES for way in ("on", "to")},
    **dict.fromkeys((*HITS, "bump into", "hit", "collide with", "knocks into", "strikes"), ("link", "collide")),
    **{word: ("camera", name) for name, words in CAMERA_WORDS.items() for word in words},
    **{f"camera {verb} {side}": ("camera", f"pan {side}") for side in ("left", "right") for verb in ("pans", "pan")},
    **{f"camera {verb} {way}": ("camera", f"tilt {way}") for way in ("up", "down") for verb in ("tilts", "tilt")},
    **{f"{verb} {way}": ("camera", f"zoom {way}") for way in ("in", "out") for verb in ("zooms", "zoom", "zooming")},
    "camera follows": ("camera", "follow"),
    **{word: ("style", name) for name, words in STYLE_WORDS.items() for word in words},
    "neon": ("style", "neon"), "neon style": ("style", "neon"), "outline": ("style", "outline"),
    **{word: ("eyes", str(number)) for number, word in EYES.items()},
    "hat": ("hat", ""), "cap": ("hat", ""),
    **{f"shot {number}": ("shot", str(number)) for number in range(1, 10)},
    **{word: meaning for meaning, words in ONLY_READ.items() for word in words.split(", ")},
    **dict.fromkeys(
        ("on the left", "on the right", "in the middle", "high up", "low down", "halfway up", "upper left",
         "light falls"),
        ("function", ""),
    ),
    **HELD_OUT_SYNONYMS,
}  # fmt: skip
RELATIONS_READ = {word: name for name, words in RELATION_WORDS.items() for word in words}
COUNT_WORDS = {word: number for number, words in NUMBERS.items() for word in words}
FUNCTION_WORDS = frozenset(
    "he she they them their same again now who which wears wearing has have camera view come comes coming after before "
    "meets please make create generate along next near beside very bright really just also until start starts end ends "
    "background colour color coloured colored shape shaped sized movie film animation gets get through around top "
    "bottom edge screen frame empty nothing only other another each both all hop bounce onto when where for no not "
    "a an the and or of is are it its on in at to from with by there this that one two single scene clip video stage "
    "paper theatre soft shadows light small shows show set takes place picture object objects everything cut cut-outs "
    "layered scenery falls upper middle halfway low high side towards toward front quiet while then as slowly quickly "
    "fast gently across over past rolls rolling roll slides sliding slide moves moving move glides gliding drifts "
    "drifting flies flying floats floating float goes going travels is be being clear pale room sky under air place "
    "floor ground does not stays stay bounces some his her into out".split()
)
